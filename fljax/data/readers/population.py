"""Makes a federated data set of a cache: its clients are those of the rows, or a partition's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from fljax.data.dataset import (
    FederatedDataset,
    Partition,
    Preprocess,
    Split,
    offsets_of,
    partition_by_owner,
)
from fljax.data.examples import ArrayExamples
from fljax.data.labels import encode
from fljax.data.partitions.partition import chosen_clients
from fljax.data.partitions.partition_arguments import partition_setting
from fljax.data.partitions.partition_names import is_natural_name, named_partition
from fljax.data.partitions.subject_partitions import partition_of_subjects
from fljax.data.readers.cache import Cache
from fljax.data.row_groups import check_values
from fljax.data.rows import check_raw
from fljax.data.splits.own_rows import pooled
from fljax.data.splits.subjects import numbered_subjects
from fljax.data.splits.test_rows import finished, splits_of_test


def population(
    cache: Cache,
    *,
    name: str,
    kind: str | None = None,
    num_classes: int | None = None,
    class_names: Sequence[str] | None = None,
    preprocess: Preprocess | None = None,
    natural: bool = True,
    owned_test: bool = True,
    partition: str | None = None,
    num_clients: int | None = None,
    seed: int = 0,
    own_test_fraction: float = 0.0,
    feature_skew: str | None = None,
    concept_shift: str | None = None,
    label_noise: str | None = None,
    held_out_fraction: float = 0.0,
    held_out_folds: int | None = None,
    held_out_fold: int | None = None,
    val_fraction: float = 0.0,
    concept_drift: str | None = None,
    **partition_options: Any,
) -> FederatedDataset:
    """Returns the data set of a cache, as `from_arrays` makes it of arrays.

    Of test rows, those of clients that train are a test set over these, and those of others are
    held-out clients, or the test set of all where no client of a test row trains. Held-out clients
    stay that with `own_test_fraction`, which pools the rows of the others.

    Args:
      cache: With the columns x and y, or "x/..." and "y/...".
      name: For logs and records.
      kind: See `FederatedDataset`; by default "classification" where y is one whole number or text
        a row, else "targets".
      num_classes: Default: as many as are named, else the largest label plus one.
      class_names: Names of the classes; by default the texts that y was.
      preprocess: See `FederatedDataset`.
      natural: Whether the ids of rows are those of clients; else a partition is needed.
      owned_test: Whether those of test rows are as well; else the test set is nobody's.
      partition, num_clients, seed: As in `from_arrays`.
      own_test_fraction, feature_skew, concept_shift, label_noise: Likewise.
      held_out_fraction, held_out_folds, held_out_fold, val_fraction, concept_drift: Likewise.
      **partition_options: Such as `alpha`.

    Raises:
      ValueError: If labels are no classes, or the partition is not possible.
    """
    seed = partition_setting("seed", seed)
    num_clients = partition_setting("num_clients", num_clients)
    own_test_fraction = partition_setting("own_test_fraction", own_test_fraction)
    examples = {split: ArrayExamples(_tree(arrays)) for split, arrays in cache.arrays.items()}
    pools = bool(own_test_fraction) and "test" in examples
    of_train, of_test = (cache.arrays.get(split, {}).get("subject") for split in ("train", "test"))
    is_pooled = _of_trained(cache) if pools else None
    subjects = _numbered(of_train, of_test, is_pooled)
    kind = kind or _kind(cache)
    if kind == "classification":
        examples, num_classes, class_names = _labelled(cache, examples, num_classes, class_names)
    elif kind == "next_token" and num_classes is None:
        num_classes = 1 + max(int(cache.columns[column]["high"]) for column in ("x", "y"))
    if preprocess is None and kind != "next_token" and "x" in cache.arrays["train"]:
        check_raw(cache.arrays["train"]["x"])
    train, test, val = (examples.get(split) for split in ("train", "test", "val"))
    owners = Partition(cache.offsets["train"])
    owned_test &= natural
    if pools and natural and not owned_test:
        raise ValueError(
            f"own_test_fraction pools all rows of {name!r}, and its test rows are no client's: "
            "name another partition, or leave one of them out"
        )
    held_out, held_out_ids = None, None
    if is_pooled is not None:
        held_out, held_out_ids = _untrained(cache, test, is_pooled)
        train, owners = _pooled(cache, train, owners, test, is_pooled)
        test = None
    present = np.flatnonzero(owners.sizes)
    is_natural = natural and (partition is None or is_natural_name(partition))
    taken = present[chosen_clients(len(present), num_clients, seed)] if is_natural else None
    if is_natural and not partition_options:
        clients = _of(owners, taken)
    else:
        named = partition or ("natural" if is_natural else "iid")
        row_ids = _row_ids(cache, owners) if is_natural or (natural and ":" in named) else None
        clients = _named(named, train, subjects, num_clients, seed, row_ids, partition_options)
    ids = None if taken is None else cache.clients[taken]
    groups = _groups(cache)
    if groups and taken is None:
        raise ValueError(
            f"the groups {', '.join(groups)} are of the clients in the data, and a partition makes "
            "others: leave one of them out"
        )
    test_split = test and Split(test)
    if test is not None and owned_test:
        test_split, held_out, held_out_ids = _tested(cache, test, cache.clients[present], ids)
    if val is not None:
        val = Split(val, None if taken is None else _of(Partition(cache.offsets["val"]), taken))
    dataset = FederatedDataset(
        name=name,
        kind=kind,
        num_classes=num_classes,
        train=Split(train, clients),
        val=val,
        test=test_split,
        held_out=held_out,
        client_ids=ids,
        held_out_ids=held_out_ids,
        preprocess=preprocess,
        class_names=class_names,
        dropped={split: rows for split, rows in cache.facts.get("dropped", {}).items() if rows},
        groups={key: values[taken] for key, values in groups.items()},
        held_out_groups=_held_out_groups(cache, groups, held_out_ids),
        row_groups=_row_groups(cache),
        subjects=subjects,
        feature_names=tuple(cache.facts.get("features", ())) or None,
    )
    return finished(
        dataset, seed, own_test_fraction, feature_skew, concept_shift, label_noise,
        held_out_fraction, held_out_folds, held_out_fold, val_fraction, concept_drift,
    )  # fmt: skip


def _tree(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Returns {"x": ..., "y": {"age": ...}} of {"x": ..., "y/age": ...}: what examples hold."""
    tree: dict[str, Any] = {}
    for name, values in arrays.items():
        if name == "subject" or name.startswith("client_groups/"):
            continue
        *parents, last = name.split("/")
        place = tree
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = values.astype(np.int8) if parents[:1] == ["groups"] else values
    return tree


def _row_groups(cache: Cache) -> dict[str, tuple[str, ...]]:
    """Returns {name: the name of each value} of groups of rows."""
    found = {
        column.removeprefix("groups/"): tuple(described["names"])
        for column, described in cache.columns.items()
        if column.startswith("groups/")
    }
    for name, values in found.items():
        check_values(name, len(values))
    return found


def _groups(cache: Cache) -> dict[str, np.ndarray]:
    """Returns {name: [N] group of each client}; refuses clients that have several."""
    found = {}
    for column in filter(lambda name: name.startswith("client_groups/"), cache.columns):
        name = column.removeprefix("client_groups/")
        number = np.full(len(cache.clients), -1)
        for split, offsets in cache.offsets.items():
            sizes, codes = np.diff(offsets), cache.arrays[split][column]
            present = np.flatnonzero(sizes)
            first = codes[offsets[present]]
            owner = np.repeat(present, sizes[present])
            is_other = codes != np.repeat(first, sizes[present])
            is_other |= (number[owner] >= 0) & (number[owner] != codes)
            if is_other.any():
                client = cache.clients[owner[np.argmax(is_other)]].item()
                raise ValueError(
                    f"client {client!r} has rows of several groups {name!r}: such groups are of "
                    "rows (row_groups), not of clients"
                )
            number[present] = first
        found[name] = np.array(cache.columns[column]["names"])[number]
    return found


def _held_out_groups(cache: Cache, groups: Mapping[str, np.ndarray], ids) -> dict[str, np.ndarray]:
    """Returns {name: group of each held-out client}."""
    if ids is None:
        return {}
    places = np.searchsorted(cache.clients, ids)
    return {name: values[places] for name, values in groups.items()}


def _kind(cache: Cache) -> str:
    y = cache.columns.get("y", {"dtype": "float", "shape": ()})
    is_class = not y["shape"] and np.dtype(y["dtype"]).kind in "iub"
    return "classification" if is_class else "targets"


def _labelled(cache: Cache, examples, num_classes, class_names):
    """Returns (examples whose y are class numbers, how many classes there are, their names)."""
    names = cache.columns["y"]["names"]
    if names is not None and class_names is not None:
        raise ValueError("class_names are for labels that are numbers, and these are texts")
    test = examples.get("test")
    labels = encode(
        examples["train"].arrays["y"],
        None if test is None else test.arrays["y"],
        num_classes,
        names or class_names,
    )
    changed = {"train": labels.y, "test": labels.y_test}
    examples = {
        split: ArrayExamples({**rows.arrays, "y": changed.get(split, rows.arrays["y"])})
        for split, rows in examples.items()
    }
    return examples, labels.num_classes, labels.class_names


def _named(name, examples, subjects, num_clients, seed, row_ids, options) -> Partition:
    """Returns the partition of a name, by the class of each row where rows have classes."""
    y = examples.arrays["y"]
    is_class = getattr(y, "ndim", 0) == 1 and y.dtype.kind in "iub"
    labels = np.asarray(y) if is_class else examples.num_examples
    if subjects is not None and not is_natural_name(name):
        return partition_of_subjects(name, labels, subjects, num_clients, seed, options)
    return named_partition(name, labels, num_clients, seed, row_ids, options)


def _of(partition: Partition, clients: np.ndarray) -> Partition:
    """Returns the partition of some clients; without an index where they have all rows in order."""
    sizes = partition.sizes[clients]
    if partition.index is None and sizes.sum() == partition.num_rows:
        return Partition(offsets_of(sizes))
    return partition.subset(clients)


def _tested(cache: Cache, test: ArrayExamples, everyone: np.ndarray, ids: np.ndarray | None):
    """Returns (test, held_out, ids of held-out clients) of test rows that clients own."""
    by_client = Partition(cache.offsets["test"])
    tested = np.flatnonzero(by_client.sizes)
    owned = Split(test, _of(by_client, tested))
    return splits_of_test(owned, cache.clients[tested], everyone, ids)


def _row_ids(cache: Cache, owners: Partition) -> np.ndarray:
    """Returns the id of each row's client."""
    number = np.empty(owners.num_rows, np.int64)
    number[owners.all_rows()] = owners.owners()
    return cache.clients[number]


def _of_trained(cache: Cache) -> np.ndarray:
    """Returns bool[test rows], whether their clients have training rows."""
    sizes = {split: np.diff(cache.offsets[split]) for split in ("train", "test")}
    return np.repeat(sizes["train"] > 0, sizes["test"])


def _numbered(of_train, of_test, is_pooled: np.ndarray | None) -> np.ndarray | None:
    """Returns the numbers of subjects, see `numbered_subjects`, of training and pooled rows."""
    if is_pooled is None or is_pooled.all() or of_test is None:
        return numbered_subjects(of_train, of_test, is_pooled is not None)
    pool = np.concatenate([of_train, of_test[is_pooled]])
    return numbered_subjects(pool, of_test[~is_pooled], False)


def _untrained(cache: Cache, test: ArrayExamples, is_pooled: np.ndarray):
    """Returns (held_out, ids of its clients): test rows that are not pooled, or two None."""
    if is_pooled.all():
        return None, None
    absent = np.flatnonzero(np.diff(cache.offsets["train"]) == 0)
    by_client = Partition(cache.offsets["test"])
    clients = absent[by_client.sizes[absent] > 0]
    return Split(test, by_client.subset(clients)), cache.clients[clients]


def _pooled(cache: Cache, train, owners: Partition, test: ArrayExamples, is_pooled: np.ndarray):
    """Returns (training and pooled test rows as one, over the same clients)."""
    if not is_pooled.any():
        return train, owners
    owner = np.repeat(np.arange(len(cache.clients)), np.diff(cache.offsets["test"]))
    owner = np.concatenate([owners.owners(), owner[is_pooled]])
    if not is_pooled.all():
        test = ArrayExamples(jax.tree.map(lambda leaf: leaf[is_pooled], test.arrays))
    return pooled(train, test), partition_by_owner(owner, owners.num_clients)
