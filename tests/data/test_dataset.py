"""Partitions, examples and splits: index arithmetic against plain loops."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fljax.data import ArrayExamples, FederatedDataset, LazyExamples, Partition, Split
from fljax.data.dataset import offsets_of, partition_by_owner

SIZES = st.lists(st.integers(0, 6), min_size=1, max_size=8)


def make_partition(sizes, with_index):
    offsets = offsets_of(np.array(sizes))
    index = np.random.default_rng(0).permutation(100)[: offsets[-1]] if with_index else None
    return Partition(offsets, index)


def make_dataset(sizes=(4, 1, 7), **changes):
    rows = int(np.sum(sizes))
    examples = ArrayExamples(
        {"x": np.arange(rows * 2.0).reshape(rows, 2), "y": np.arange(rows) % 3}
    )
    dataset = FederatedDataset(
        "toy", "classification", 3, Split(examples, Partition(offsets_of(np.array(sizes))))
    )
    return dataclasses.replace(dataset, **changes)


@given(SIZES, st.booleans())
def test_rows_of_every_client(sizes, with_index):
    partition = make_partition(sizes, with_index)
    start = 0
    for client, size in enumerate(sizes):
        rows = [
            r if partition.index is None else partition.index[r] for r in range(start, start + size)
        ]
        assert partition.rows(client).tolist() == rows
        at = partition.row_at(np.full(size, client, np.int32), np.arange(size))
        assert at.tolist() == rows
        start += size
    assert partition.sizes.tolist() == list(sizes)
    assert partition.num_rows == sum(sizes) and partition.num_clients == len(sizes)
    assert partition.owners().tolist() == [c for c, n in enumerate(sizes) for _ in range(n)]


@given(SIZES, st.booleans(), st.data())
def test_subset_keeps_the_rows_of_the_chosen_clients(sizes, with_index, data):
    partition = make_partition(sizes, with_index)
    chosen = data.draw(st.lists(st.integers(0, len(sizes) - 1), max_size=6))
    subset = partition.subset(np.array(chosen, np.int64))
    assert subset.num_clients == len(chosen)
    for place, client in enumerate(chosen):
        assert subset.rows(place).tolist() == partition.rows(client).tolist()


def test_row_at_broadcasts():
    partition = Partition(np.array([0, 3, 5, 9]), np.arange(9)[::-1].copy())
    rows = partition.row_at(np.array([[0], [2]]), np.array([0, 1]))
    assert rows.tolist() == [[8, 7], [3, 2]]


def test_partition_by_owner_inverts_owners():
    owner = np.random.default_rng(1).integers(0, 5, 40)
    partition = partition_by_owner(owner, 6)
    assert partition.sizes[5] == 0 and partition.index.dtype == np.int32
    assert np.array_equal(owner[partition.index], partition.owners())


@pytest.mark.parametrize("offsets", [[1, 2], [0, 3, 2], [[0, 1]], []])
def test_wrong_offsets_are_refused(offsets):
    with pytest.raises(ValueError, match="offsets"):
        Partition(np.array(offsets))


def test_index_of_the_wrong_length_is_refused():
    with pytest.raises(ValueError, match="end at 3, but the index has 2"):
        Partition(np.array([0, 3]), np.arange(2))


def test_lazy_and_array_examples_agree():
    stored = ArrayExamples({"x": np.arange(12.0).reshape(6, 2), "y": np.arange(6, dtype=np.int32)})
    lazy = LazyExamples(6, stored.take, stored.spec)
    rows = np.array([[5, 0], [3, 3]])
    for name in ("x", "y"):
        assert np.array_equal(lazy.take(rows)[name], stored.take(rows)[name])
        assert np.array_equal(lazy.materialize().arrays[name], stored.arrays[name])
    assert lazy.nbytes == stored.nbytes == 6 * (16 + 4)
    assert lazy.arrays is None and lazy.spec == stored.spec


def test_arrays_of_unequal_length_are_refused():
    with pytest.raises(ValueError, match="'x': 3, 'y': 2"):
        ArrayExamples({"x": np.zeros(3), "y": np.zeros(2)})


def test_memory_mapped_examples_are_read_as_plain_arrays(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(20, dtype=np.uint8).reshape(10, 2))
    x = np.load(tmp_path / "x.npy", mmap_mode="r")
    taken = ArrayExamples({"x": x}).take(np.array([7, 2]))["x"]
    assert type(taken) is np.ndarray and taken.tolist() == [[14, 15], [4, 5]]


def test_spec_is_what_the_model_sees():
    scale = lambda batch: {**batch, "x": batch["x"].astype(jnp.float32) / 2}  # noqa: E731
    dataset = make_dataset(preprocess=scale)
    assert dataset.spec["x"] == jax.ShapeDtypeStruct((2,), jnp.float32)
    assert "model sees" in dataset.describe()


@pytest.mark.parametrize("sizes", [(40, 3, 1, 1, 7, 0, 25), (1000, 10), (2, 2, 2, 2, 2)])
@pytest.mark.parametrize("fraction", [0.1, 0.3, 0.5])
def test_validation_rows_are_split_off_inside_every_client(sizes, fraction):
    dataset = make_dataset(sizes)
    split = dataset.with_validation(fraction, seed=3)
    train, val = split.train.partition, split.val.partition
    assert split.val.examples is dataset.train.examples
    assert abs(val.num_rows - fraction * sum(sizes)) <= 1
    for client in range(len(sizes)):
        both = np.concatenate([train.rows(client), val.rows(client)])
        assert sorted(both) == dataset.train.partition.rows(client).tolist()
        assert train.sizes[client] >= min(sizes[client], 1)


def test_validation_rows_of_small_clients_are_right_in_expectation():
    dataset = make_dataset((3,) * 40)
    taken = np.zeros(120)
    for seed in range(400):
        taken[dataset.with_validation(0.2, seed).val.rows()] += 1
    # 400 draws of probability 0.2: a standard deviation of 0.02.
    assert np.abs(taken / 400 - 0.2).max() < 0.1
    assert np.abs(taken.reshape(40, 3).mean(axis=1) / 400 - 0.2).max() < 0.05


def test_impossible_validation_fractions_are_refused():
    with pytest.raises(ValueError, match="val_fraction = 1.0 must be at least 0 and below 1"):
        make_dataset().with_validation(1.0)
    with pytest.raises(ValueError, match="can spare only 2"):
        make_dataset((2, 2)).with_validation(0.9)
    with pytest.raises(ValueError, match="less than one row"):
        make_dataset((2, 2)).with_validation(1e-6)
    with pytest.raises(ValueError, match="already"):
        make_dataset().with_validation(0.3).with_validation(0.3)


def test_repartition_drops_what_belonged_to_the_old_clients():
    held = Split(ArrayExamples({"x": np.ones((2, 2)), "y": np.ones(2, int)}), Partition([0, 1, 2]))
    test = Split(held.examples, Partition(np.array([0, 1, 1, 1]), np.array([1])))
    dataset = make_dataset(
        test=test, held_out=held, client_ids=np.arange(3), groups={"g": [0, 1, 0]}
    )
    dataset = dataset.with_validation(0.3, seed=0)
    rows = np.sort(dataset.train.rows())
    pooled = dataset.repartition(Partition(np.array([0, len(rows)]), rows))
    assert pooled.num_clients == 1 and pooled.client_ids is None and not pooled.groups
    assert pooled.held_out is held
    # Only the rows that somebody owned become global, not all that the arrays hold.
    assert pooled.test.partition is None and pooled.test.num_rows == 1
    assert pooled.val.partition is None and pooled.val.num_rows == dataset.val.num_rows
    old = dataset.val.examples.take(dataset.val.rows())["x"]
    assert np.array_equal(pooled.val.examples.take(pooled.val.rows())["x"], old)


def test_repartition_refuses_rows_that_are_not_for_training():
    with pytest.raises(ValueError, match="rows 12..12, but there are 12 examples"):
        make_dataset().repartition(Partition(np.array([0, 1]), np.array([12])))
    with pytest.raises(ValueError, match="validation"):
        make_dataset().with_validation(0.3).repartition(Partition(np.array([0, 12])))


def test_clients_of_the_splits_must_agree():
    examples = make_dataset().train.examples
    with pytest.raises(ValueError, match="test split of 'toy' has 2 clients"):
        make_dataset(test=Split(examples, Partition([0, 1, 2])))
    with pytest.raises(ValueError, match="kind"):
        make_dataset(kind="regression")
    with pytest.raises(ValueError, match="need a partition"):
        make_dataset(train=Split(examples))
