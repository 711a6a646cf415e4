"""Networks sort: small ones by the 0-1 principle, large ones as NumPy does, whole and in part."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fljax.robustness import networks


def through(size, ranks, rows):
    """Returns what a network makes of rows, in NumPy."""
    start, layers = networks._network(size, tuple(ranks))
    rows = rows[start]
    for first, second, takes_minimum in layers:
        least = np.minimum(rows[first], rows[second])
        rows = np.where(takes_minimum[:, None], least, np.maximum(rows[first], rows[second]))
    return rows


def middle(size):
    return sorted({max(0, size // 2 - 1), size // 2})


@pytest.mark.parametrize("size", range(1, 14))
def test_every_sequence_of_zeros_and_ones_is_sorted(size):
    # a network that sorts these sorts everything (Knuth, volume 3, theorem Z)
    every = np.array(list(itertools.product([0, 1], repeat=size))).T
    for ranks in (range(size), middle(size), [0], [size - 1]):
        found = through(size, ranks, every)
        np.testing.assert_array_equal(found, np.sort(every, axis=0)[list(ranks)])


@pytest.mark.parametrize("size", [16, 17, 25, 31, 64, 100, 300])
def test_large_networks_sort(size):
    rows = np.random.default_rng(size).integers(0, size, (size, 50))
    for ranks in (range(size), middle(size), [size // 10, size - 1]):
        found = through(size, ranks, rows)
        np.testing.assert_array_equal(found, np.sort(rows, axis=0)[list(ranks)])


def test_a_network_is_no_larger_than_it_must_be():
    _, layers = networks._network(100, (49, 50))
    assert len(layers) == 28
    # the last layers leave out what the middle does not depend on
    sizes = [len(layer.first) for layer in layers]
    assert sizes[-1] == 2 and sizes == sorted(sizes, reverse=True)


@pytest.mark.parametrize("columns", [5, 300])
def test_columns_are_taken_in_turn(columns, monkeypatch):
    monkeypatch.setattr(networks, "_BLOCK", 64)
    rows = np.random.default_rng(0).standard_normal((9, columns))
    found = jax.jit(lambda rows: networks.ordered(rows, [1, 4]))(jnp.asarray(rows))
    np.testing.assert_array_equal(found, np.sort(rows, axis=0)[[1, 4]])

    def spread(block):
        least, most = networks.ordered(block, [0, 8])
        return most - least

    found = jax.jit(lambda rows: networks.by_columns(spread, rows))(jnp.asarray(rows))
    np.testing.assert_array_equal(found, rows.max(0) - rows.min(0))


def test_elsewhere_than_on_cpus_all_columns_are_taken_at_once(monkeypatch):
    monkeypatch.setattr(networks, "_BLOCK", 64)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    rows = jnp.ones((9, 300))
    for rule in (
        lambda rows: networks.ordered(rows, [4]),
        lambda rows: networks.by_columns(lambda block: block[0], rows),
    ):
        assert "while" not in str(jax.make_jaxpr(rule)(rows))


def test_infinities_and_extremes_are_sorted():
    top = np.finfo(np.float32).max
    rows = np.array([[np.inf, top], [-np.inf, 0.0], [top, -top], [-top, 1e-30]], np.float32)
    found = jax.jit(lambda rows: networks.ordered(rows, range(4)))(rows)
    np.testing.assert_array_equal(found, np.sort(rows, axis=0))
