"""Sparse codes against NumPy."""

import math

import compressor_laws as laws
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fljax import compression as c

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.mark.parametrize("index_format", ["raw", "bitmap", "smallest"])
@pytest.mark.parametrize(("d", "fraction"), [(24, 0.1), (24, 0.5), (57, 0.03), (1, 0.01)])
def test_top_k_keeps_the_largest_and_the_first_of_equals(index_format, d, fraction):
    x = laws.vector(d)
    x[d // 3 :] = np.round(x[d // 3 :])  # many equal magnitudes
    k = max(1, round(fraction * d))
    expected = np.zeros(d, np.float32)
    largest = np.argsort(-np.abs(x), kind="stable")[:k]
    expected[largest] = x[largest]
    code = c.top_k(fraction, index_format=index_format)
    np.testing.assert_array_equal(laws.roundtrip(code, x), expected)
    sizes = {"raw": k * math.ceil(math.log2(d)), "bitmap": d}
    positions = sizes.get(index_format, min(sizes.values()))
    payload = jax.eval_shape(code.encode, laws.KEY, jnp.zeros(d))
    assert int(code.bits(payload, d)) == 32 * k + positions


def test_everything_kept_changes_nothing():
    x = laws.vector(57)
    for code in (c.top_k(1.0), c.rand_k(1.0), c.rand_k(1.0, index_format="seed"), c.prune(1.0)):
        np.testing.assert_array_equal(laws.roundtrip(code, x), x)


def test_prune_keeps_equal_magnitudes_and_sends_no_zeros():
    x = np.array([3, -1, 0, 1, 0.5, 0, -3, 1], np.float32)
    code = c.prune(3 / 8)
    payload = laws.encoded(code, x)
    expected = np.where(np.abs(x) >= 1, x, 0)
    np.testing.assert_array_equal(code.decode(payload, 8), expected)
    assert int(code.bits(payload, 8)) == 8 + 5 * 32
    sparse = laws.encoded(code, 2 * np.eye(8, dtype=np.float32)[3])
    assert int(code.bits(sparse, 8)) == 8 + 32


def test_rand_k_draws_every_coordinate_alike():
    received = laws.draws(c.rand_k(0.25, unbiased=False), jnp.ones(20), 4_000)
    assert (received.sum(1) == 5).all()
    share = received.mean(0)
    assert (np.abs(share - 0.25) <= 4 * math.sqrt(0.25 * 0.75 / 4_000)).all()


@pytest.mark.parametrize(("k", "d"), [(1, 2), (3, 10), (10, 1000)])
def test_index_bits(k, d):
    sizes = c.index_bits(k, d)
    assert sizes.raw == k * math.ceil(math.log2(d)) and sizes.bitmap == d
    assert sizes.entropy == pytest.approx(math.log2(math.comb(d, k)), rel=1e-9)
    assert sizes.entropy <= min(sizes.raw, sizes.bitmap) + 1e-9


def test_wrong_settings_are_named():
    with pytest.raises(ValueError, match="fraction must lie above 0"):
        c.top_k(0)
    with pytest.raises(ValueError, match="index_format must be one of"):
        c.top_k(0.1, index_format="huffman")
