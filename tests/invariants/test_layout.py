"""Invariants 1 and 2: reruns are bit-equal, and the layout on the hardware changes nothing."""

import chex
import jax
import numpy as np
import pytest
import toy

import fljax
from fljax import algorithms
from fljax.data.dataset import Partition, offsets_of
from fljax.training.federation import RoundOptions, build

pytestmark = pytest.mark.usefixtures("quick_compilation")

COHORTS = [[0, 1, 2, 3, 8], [3, 4, 8], [], [5, 6, 7, 0, 4, 2]]
LAYOUTS = [
    {"devices": 8},
    {"devices": 1, "lanes": 3},
    {"devices": 2, "lanes": 2, "wave": 4},
    {"devices": 3, "wave": 2, "placement": "stream"},
]
ADAM = algorithms.fedopt("adam", 0.2, 0.05)
# Each with its layouts; what Adam's clients do is what SGD's do, and servers know of no layout.
CASES = {
    "fedavg": (algorithms.fedavg(0.2), LAYOUTS),
    "fedadam": (ADAM, LAYOUTS[2:3]),
    "fedsgd": (algorithms.fedsgd(0.3), LAYOUTS[::3]),
    "scaffold": (algorithms.scaffold(0.2), LAYOUTS),
}
FEDAVG = CASES["fedavg"][0]


def final_params(spec, dtype, **options):
    """Parameters after four ragged, shuffled rounds."""
    federation, _ = toy.run_rounds(
        toy.clients(dtype=dtype), spec, COHORTS, task=toy.softmax_task(dtype),
        local_epochs=2, shuffle=True, **options,
    )  # fmt: skip
    return toy.params_of(federation)


@pytest.mark.parametrize("name", CASES)
def test_layout_changes_nothing_in_float64(name):
    spec, layouts = CASES[name]
    with jax.enable_x64(True):
        expected = final_params(spec, np.float64, devices=1)
        for layout in layouts:
            got = final_params(spec, np.float64, **layout)
            toy.assert_close(got, expected, 1e-9)


def test_layout_changes_little_in_float32():
    with jax.default_matmul_precision("highest"):
        expected = final_params(FEDAVG, np.float32, devices=1)
        for layout in LAYOUTS[1:3]:
            toy.assert_close(final_params(FEDAVG, np.float32, **layout), expected, 1e-5)


def mapped(parts, folder):
    """The dataset of a list of (x, y), its rows in files that are mapped into memory."""
    arrays = {}
    for name, values in zip("xy", zip(*parts, strict=True), strict=True):
        whole = np.concatenate(values)
        whole.tofile(folder / name)
        arrays[name] = np.memmap(folder / name, whole.dtype, "r", shape=whole.shape)
    owners = Partition(offsets_of([len(y) for _, y in parts]))
    return fljax.data.from_arrays(**arrays, partition=owners, num_classes=toy.CLASSES)


def test_rows_of_mapped_files_are_those_in_memory(tmp_path):
    """Bit for bit: the same rows in the same batches, whether they lie on a device or in a file."""
    parts = toy.clients(dtype=np.float32)
    dataset = mapped(parts, tmp_path)
    options = {"num_rounds": 4, "clients_per_round": 5, "cohorts": COHORTS, "batch_size": 4}
    trained = []
    for data, placement in ((toy.dataset(parts), "device"), (dataset, "stream")):
        federation = build(
            data,
            toy.softmax_task(np.float32),
            ADAM,
            RoundOptions(**options, local_epochs=2, devices=2, placement=placement),
        )
        for plan, facts in federation.plans(0, 4):
            federation.step(plan, facts)
        trained.append(toy.params_of(federation))
    assert isinstance(dataset.train.examples.arrays["x"], np.memmap)
    chex.assert_trees_all_equal(*trained)


@pytest.mark.parametrize("layout", LAYOUTS[:2])
def test_reruns_are_bit_equal(layout):
    first, second = (final_params(ADAM, np.float32, **layout) for _ in range(2))
    chex.assert_trees_all_equal(first, second)


def test_equal_clients_are_exchanged_together():
    """Clients of one size end at the same time, and are exchanged in one exchange."""
    parts = toy.clients([8] * 10)
    with jax.enable_x64(True):
        cohorts = [list(range(10)), [1, 3, 5]]
        alone, _ = toy.run_rounds(parts, FEDAVG, cohorts, devices=1)
        together, _ = toy.run_rounds(parts, FEDAVG, cohorts, devices=2, lanes=4)
        assert together.execution.exchange_size == 4
        toy.assert_close(toy.params_of(together), toy.params_of(alone), 1e-9)


def test_a_seed_changes_the_order_of_rows():
    first, second = (final_params(FEDAVG, np.float32, seed=seed, devices=1) for seed in (0, 1))
    assert any((first[name] != second[name]).any() for name in first)
