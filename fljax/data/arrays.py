"""A federated dataset from arrays of one's own, with or without client ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import jax
import numpy as np

from fljax.data.checks import row_count, unique_ids
from fljax.data.dataset import (
    KINDS,
    ArrayExamples,
    Examples,
    FederatedDataset,
    Partition,
    Preprocess,
    Split,
    partition_by_owner,
)
from fljax.data.partition import make_partition


def from_arrays(
    x: np.ndarray,
    y: np.ndarray,
    *,
    client_ids: np.ndarray | None = None,
    x_test: np.ndarray | None = None,
    y_test: np.ndarray | None = None,
    test_client_ids: np.ndarray | None = None,
    partition: str | Partition | None = None,
    num_clients: int | None = None,
    groups: Mapping[str, Sequence] | None = None,
    seed: int = 0,
    val_fraction: float = 0.0,
    num_classes: int | None = None,
    preprocess: Preprocess | None = None,
    name: str = "arrays",
    kind: str = "classification",
    **partition_options,
) -> FederatedDataset:
    """Builds a federated dataset from arrays.

    With client ids the clients are those of the data, unless another partition is named. Test rows
    with ids are treated by whether their client trains: rows of training clients become a test set
    over the same clients; rows of other clients become `held_out`, and where no test client trains,
    all test rows also serve as the global test set.

    Args:
      x: [rows, ...] features, in memory or `np.memmap` (which is never copied or converted);
        in-memory 64-bit features are stored as JAX would hold them (32 bits unless x64 is on).
      y: [rows] integer labels, stored as int32 unless a memmap; or, for `kind="next_token"`,
        [rows, length] token ids, stored as they are.
      client_ids: [rows] integers or strings.
      x_test: Like x.
      y_test: Like y.
      test_client_ids: [test rows], of the same type as `client_ids`.
      partition: A name of `PARTITIONERS`, or a `Partition`. Default: "natural" with client ids,
        "iid" where only `num_clients` is given.
      num_clients: N; not needed for natural clients.
      groups: {name: [N] group of each client}, integers or strings, in the order of the clients;
        natural clients are in the order of their sorted ids.
      seed: Chooses the partition and the validation rows.
      val_fraction: Share of the training rows to split off for validation, client by client.
      num_classes: Default: the largest label plus one.
      preprocess: See `FederatedDataset`.
      name: For logs and records.
      kind: "classification" or "next_token".
      **partition_options: Such as `alpha`, `shards_per_client` or `min_partition_size`.

    Returns:
      The dataset.

    Raises:
      ValueError: If lengths, types, labels or ids do not fit, or no partition is given.
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, not {kind!r}")
    examples = _examples(x, y, kind, "")
    if not examples.num_examples:
        raise ValueError(f"{name!r} has no training rows")
    test = _test_examples(x_test, y_test, kind, examples)
    num_classes = _num_classes(examples, test, num_classes)

    is_natural = partition == "natural" or (partition is None and client_ids is not None)
    ids = None
    if is_natural:
        if client_ids is None:
            raise ValueError(
                f"{name!r} has no natural clients: give client_ids, or name another partition"
            )
        ids, _ = unique_ids(client_ids, examples.num_examples)
        partition_options["client_ids"] = client_ids
        partition = "natural"
    chosen = _partition(partition, examples, num_clients, seed, partition_options)
    test_split, held_out = _test_splits(test, client_ids, test_client_ids, is_natural)
    dataset = FederatedDataset(
        name=name,
        kind=kind,
        num_classes=num_classes,
        train=Split(examples, chosen),
        test=test_split,
        held_out=held_out,
        client_ids=ids,
        groups={key: np.asarray(values) for key, values in (groups or {}).items()},
        preprocess=preprocess,
    )
    return dataset.with_validation(val_fraction, seed) if val_fraction else dataset


def _partition(partition, examples, num_clients, seed, options) -> Partition:
    """Returns the partition that was given, or builds the one that was named."""
    if isinstance(partition, Partition):
        if num_clients not in (None, partition.num_clients):
            raise ValueError(
                f"num_clients={num_clients}, but the partition has {partition.num_clients} clients"
            )
        if options:
            raise ValueError(f"a ready partition takes no options, but got {', '.join(options)}")
        rows = partition.all_rows()
        if rows.size and not 0 <= rows.min() <= rows.max() < examples.num_examples:
            raise ValueError(
                f"the partition names rows {rows.min()}..{rows.max()}, but there are "
                f"{examples.num_examples} training rows"
            )
        return partition
    if partition is None and num_clients is None:
        raise ValueError(
            "these data have no clients of their own: give client_ids, or a partition by name and "
            "num_clients, such as partition='dirichlet', num_clients=100, alpha=0.3"
        )
    labels = examples.arrays["y"]
    labels = labels if labels.ndim == 1 else row_count(labels)
    return make_partition(partition or "iid", labels, num_clients, seed, **options)


def _examples(x, y, kind: str, suffix: str) -> ArrayExamples:
    """Checks one pair of arrays and returns it as examples."""
    x, y = _stored(x, f"x{suffix}"), _stored(y, f"y{suffix}")
    if len(x) != len(y):
        raise ValueError(f"x{suffix} has {len(x)} rows, but y{suffix} has {len(y)}")
    dims = 1 if kind == "classification" else 2
    if y.ndim != dims:
        wanted = "[rows] labels" if dims == 1 else "[rows, length] token ids"
        raise ValueError(f"y{suffix} must be {wanted} for {kind}, not of shape {list(y.shape)}")
    if y.dtype.kind not in "iub":
        raise ValueError(
            f"y{suffix} must hold integers, not {y.dtype}: encode the classes as 0, 1, 2, ..."
        )
    if y.size and y.min() < 0:
        raise ValueError(f"y{suffix} has the negative label {y.min()}; classes are 0, 1, 2, ...")
    if kind == "classification" and not isinstance(y, np.memmap):
        y = y.astype(np.int32, copy=False)
    return ArrayExamples({"x": x, "y": y})


def _stored(values, name: str) -> np.ndarray:
    """Returns an array in the type in which JAX would hold it; a memmap stays as it is."""
    if isinstance(values, np.memmap):
        return values
    values = np.asarray(values)
    if values.ndim == 0 or values.dtype.kind not in "fiubc":
        raise ValueError(
            f"{name} must be an array of numbers with one row per example, not "
            f"{values.dtype} of shape {list(values.shape)}"
        )
    return values.astype(jax.dtypes.canonicalize_dtype(values.dtype), copy=False)


def _test_examples(x_test, y_test, kind: str, train: Examples) -> ArrayExamples | None:
    """Returns the test examples, or None where there are none."""
    if x_test is None and y_test is None:
        return None
    if x_test is None or y_test is None:
        raise ValueError("x_test and y_test go together, but only one was given")
    test = _examples(x_test, y_test, kind, "_test")
    for key, one in train.spec.items():
        if test.spec[key].shape != one.shape or test.spec[key].dtype != one.dtype:
            raise ValueError(
                f"a row of {key}_test is {test.spec[key].dtype}{list(test.spec[key].shape)}, but a "
                f"training row is {one.dtype}{list(one.shape)}"
            )
    return test


def _num_classes(train: ArrayExamples, test: ArrayExamples | None, given: int | None) -> int:
    """Returns the number of classes: the given one if it suffices, or the labels' own."""
    splits = [s for s in (train, test) if s is not None and s.num_examples]
    seen = 1 + max(int(split.arrays["y"].max()) for split in splits)
    if given is not None and given < seen:
        raise ValueError(f"num_classes={given}, but the labels go up to {seen - 1}")
    return seen if given is None else given


def _test_splits(
    test: ArrayExamples | None, client_ids, test_client_ids, is_natural: bool
) -> tuple[Split | None, Split | None]:
    """Returns (test, held_out), by whether the clients of the test rows train."""
    if test_client_ids is None:
        return test and Split(test), None
    if test is None:
        raise ValueError("test_client_ids were given without x_test and y_test")
    if client_ids is None:
        raise ValueError("test_client_ids were given without client_ids of the training rows")
    ids, _ = unique_ids(client_ids, len(client_ids))
    test_ids, owner = unique_ids(test_client_ids, test.num_examples)
    if (ids.dtype.kind in "US") != (test_ids.dtype.kind in "US"):
        raise ValueError(
            f"client_ids are {ids.dtype}, but test_client_ids are {test_ids.dtype}: convert them "
            "to one type, or no client will be found again"
        )
    trains = np.isin(test_ids, ids)
    by_client = partition_by_owner(owner, len(test_ids))
    held_out = None if trains.all() else Split(test, by_client.subset(np.flatnonzero(~trains)))
    if not trains.any() or not is_natural:
        return Split(test), held_out
    place = np.searchsorted(ids, test_ids[trains])
    return Split(test, _over(by_client.subset(np.flatnonzero(trains)), place, len(ids))), held_out


def _over(partition: Partition, place: np.ndarray, num_clients: int) -> Partition:
    """Returns a partition over more clients, of which those at increasing `place` have the rows."""
    sizes = np.zeros(num_clients, np.int64)
    sizes[place] = partition.sizes
    return Partition(np.concatenate([[0], np.cumsum(sizes)]), partition.index)
