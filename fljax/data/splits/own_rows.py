"""Gives each client test rows of its own: all rows are divided among clients, then each client's.

Personal models are judged on their client's own distribution, so the rows that a source trains and
tests on are pooled before they are divided, as in PFLlib.
"""

from __future__ import annotations

import dataclasses

import jax
import numpy as np

from fljax.core import random
from fljax.data.dataset import FederatedDataset, Partition, Split, check_stays, offsets_of
from fljax.data.examples import ArrayExamples, Examples
from fljax.data.partitions.partition_arguments import partition_setting
from fljax.data.splits.subjects import divided_by_subject


def with_own_test(dataset: FederatedDataset, fraction: float, seed: int = 0) -> FederatedDataset:
    """Returns the dataset with each client's training rows divided into training and test rows.

    Of n rows, the whole number nearest to fraction x n is tested on, at least one where there are
    two; each class has its share of them, up to one row. Of rows with subjects, whole subjects are
    tested on, and shares hold as nearly as that allows. Examples are shared, and no row is copied.

    Args:
      dataset: Without a test set; `from_arrays(own_test_fraction=...)` pools one with the rest.
      fraction: Of each client's rows, in (0, 1).
      seed: Chooses the rows.

    Raises:
      ValueError: If there is a test or validation set already, or nothing is left to test on.

    Example:
      >>> dataset = data.with_own_test(data.from_arrays(np.eye(8), [0, 1] * 4, num_clients=2), 0.25)
      >>> dataset.train.partition.sizes.tolist(), dataset.test.partition.sizes.tolist()
      ([3, 3], [1, 1])
    """
    fraction = partition_setting("own_test_fraction", fraction)
    seed = partition_setting("seed", seed)
    if not fraction:
        raise ValueError("own_test_fraction = 0 leaves nothing to test on; give a share above 0.")
    check_stays(dataset, "split off for tests")
    for role in ("test", "val"):
        if getattr(dataset, role) is not None:
            raise ValueError(
                f"{dataset.name!r} has a {role} split already: own test rows are chosen among rows "
                "that train, and validation rows after them"
            )
    examples, partition = dataset.train.examples, dataset.train.partition
    if dataset.subjects is not None:
        train, test = divided_by_subject(
            partition, dataset.subjects, fraction, seed, purpose="own rows/subjects", least=1
        )
        if not test.num_rows:
            raise ValueError(
                f"own_test_fraction = {fraction}, but no client of {dataset.name!r} has two "
                "subjects, one to train and one to test on"
            )
        return _with_test(dataset, train, test)
    sizes = partition.sizes
    counts = np.clip(np.rint(fraction * sizes), 1, sizes - 1).clip(0).astype(np.int64)
    if not counts.any():
        raise ValueError(
            f"own_test_fraction = {fraction}, but no client of {dataset.name!r} has two rows, one "
            "to train and one to test on"
        )
    train, test = _divided(partition, labels_of(examples, partition), counts, seed)
    return _with_test(dataset, train, test)


def _with_test(dataset: FederatedDataset, train: Partition, test: Partition) -> FederatedDataset:
    examples = dataset.train.examples
    return dataclasses.replace(dataset, train=Split(examples, train), test=Split(examples, test))


def limited(partition: Partition, labels: np.ndarray | int, rows: int, seed: int) -> Partition:
    """Returns the partition with so many rows of each client, a stratified sample of what it has.

    Args:
      partition: Over N clients.
      labels: int[rows] of all rows that there are, or their number.
      rows: The rows of each client.
      seed: Chooses them.

    Raises:
      ValueError: If a client has fewer.
    """
    rows = partition_setting("rows_per_client", rows)
    sizes = partition.sizes
    if partition.num_clients and sizes.min() < rows:
        raise ValueError(
            f"rows_per_client = {rows}, but client {sizes.argmin()} gets {sizes.min()} rows: take "
            f"fewer, or set min_partition_size = {rows} where the partition has it"
        )
    counts = np.full(partition.num_clients, rows)
    rows_of_all = partition.all_rows()
    owned = np.asarray(labels)[rows_of_all] if np.ndim(labels) else np.zeros(len(rows_of_all))
    _, kept = _divided(partition, owned, counts, seed)
    return kept


def pooled(train: ArrayExamples, test: ArrayExamples) -> ArrayExamples:
    """Returns the examples of both, those of the test set behind the others.

    Raises:
      ValueError: If they lie on disk.
    """
    if any(isinstance(leaf, np.memmap) for leaf in jax.tree.leaves((train.arrays, test.arrays))):
        raise ValueError(
            "own_test_fraction puts training and test rows into one array, which would copy a "
            "memmap: give all rows as x and y, and leave x_test and y_test out"
        )
    return ArrayExamples(
        jax.tree.map(lambda *both: np.concatenate(both), train.arrays, test.arrays)
    )


def labels_of(examples: Examples, partition: Partition) -> np.ndarray:
    """Returns int[rows] the class of each row of `partition.all_rows()`, 0 without classes."""
    y = None if examples.arrays is None else examples.arrays["y"]
    if getattr(y, "ndim", 0) == 1 and y.dtype.kind in "iub":
        return np.asarray(y[partition.all_rows()])
    return np.zeros(partition.num_rows, np.int8)


def _divided(
    partition: Partition, labels: np.ndarray, counts: np.ndarray, seed: int
) -> tuple[Partition, Partition]:
    """Returns (the rest, `counts[i]` rows of each client i), stratified by label.

    Rows of a client, sorted by label and else in random order, are taken at even distances from a
    random start.

    Args:
      partition: Over N clients.
      labels: int[rows] of `partition.all_rows()`.
      counts: int[N], none above the client's size.
      seed: Chooses the rows.
    """
    rows, sizes, owner = partition.all_rows(), partition.sizes, partition.owners()
    order = np.lexsort((random.bits(seed, "own rows", rows), labels, owner))
    rank = np.arange(len(rows)) - np.repeat(partition.offsets[:-1], sizes)
    start = random.uniform(seed, "own rows/start", np.arange(partition.num_clients))
    first = np.repeat((start * sizes).astype(np.int64), sizes)
    size, count = np.repeat(sizes, sizes), np.repeat(counts, sizes)
    taken = np.empty(len(rows), bool)
    taken[order] = (first + (rank + 1) * count) // size > (first + rank * count) // size
    return (
        Partition(offsets_of(sizes - counts), rows[~taken]),
        Partition(offsets_of(counts), rows[taken]),
    )
