"""Invariants 1 and 2: reruns are bit-equal, and the layout on the hardware changes nothing."""

import chex
import jax
import numpy as np
import pytest
import toy

from fljax import algorithms

COHORTS = [[0, 1, 2, 3, 8], [3, 4, 8], [], [5, 6, 7, 0, 4, 2]]
LAYOUTS = [
    {"devices": 8},
    {"devices": 1, "lanes": 3},
    {"devices": 2, "lanes": 2, "wave": 4},
    {"devices": 3, "wave": 2, "placement": "stream"},
]
ALGORITHMS = {
    "fedavg": algorithms.fedavg(0.2),
    "fedadam": algorithms.fedopt("adam", 0.2, 0.05),
    "fedsgd": algorithms.fedsgd(0.3),
    "scaffold": algorithms.scaffold(0.2),
}


def final_params(spec, dtype, **options):
    """Parameters after four ragged, shuffled rounds."""
    federation, _ = toy.run_rounds(
        toy.clients(dtype=dtype), spec, COHORTS, task=toy.softmax_task(dtype),
        local_epochs=2, shuffle=True, **options,
    )  # fmt: skip
    return toy.params_of(federation)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_layout_changes_nothing_in_float64(name):
    with jax.enable_x64(True):
        expected = final_params(ALGORITHMS[name], np.float64, devices=1)
        for layout in LAYOUTS:
            got = final_params(ALGORITHMS[name], np.float64, **layout)
            toy.assert_close(got, expected, 1e-9)


def test_layout_changes_little_in_float32():
    with jax.default_matmul_precision("highest"):
        expected = final_params(ALGORITHMS["fedavg"], np.float32, devices=1)
        for layout in LAYOUTS:
            toy.assert_close(
                final_params(ALGORITHMS["fedavg"], np.float32, **layout), expected, 1e-5
            )


@pytest.mark.parametrize("layout", LAYOUTS[:2])
def test_reruns_are_bit_equal(layout):
    first, second = (final_params(ALGORITHMS["fedadam"], np.float32, **layout) for _ in range(2))
    chex.assert_trees_all_equal(first, second)


def test_equal_clients_harvest_together():
    """Clients of one size end at the same time, and are exchanged in one event."""
    parts = toy.clients([8] * 10)
    with jax.enable_x64(True):
        cohorts = [list(range(10)), [1, 3, 5]]
        alone, _ = toy.run_rounds(parts, ALGORITHMS["fedavg"], cohorts, devices=1)
        together, _ = toy.run_rounds(parts, ALGORITHMS["fedavg"], cohorts, devices=2, lanes=4)
        assert together.execution.harvest == 4
        toy.assert_close(toy.params_of(together), toy.params_of(alone), 1e-9)


def test_a_seed_changes_the_order_of_rows():
    first, second = (
        final_params(ALGORITHMS["fedavg"], np.float32, seed=seed, devices=1) for seed in (0, 1)
    )
    assert any((first[name] != second[name]).any() for name in first)
