"""Builds a federated dataset from arrays of one's own, with or without client ids."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fljax.core.values import COUNT, Field, checked, wrong
from fljax.data.dataset import (
    KINDS,
    FederatedDataset,
    Partition,
    Preprocess,
    Split,
    partition_by_owner,
)
from fljax.data.examples import ArrayExamples, named_arrays
from fljax.data.heterogeneity.label_noise import NoiseKind
from fljax.data.heterogeneity.skews import Skew
from fljax.data.ids import as_ids, places_among, some_of, unique_ids
from fljax.data.labels import encode
from fljax.data.partitions.partition import chosen_clients
from fljax.data.partitions.partition_arguments import partition_setting
from fljax.data.partitions.partition_names import (
    PARTITIONERS,
    call_of,
    check_options,
    is_natural_name,
    named_partition,
)
from fljax.data.partitions.subject_partitions import partition_of_subjects
from fljax.data.row_groups import numbered
from fljax.data.rows import Rows, check_raw, finite, read
from fljax.data.splits.own_rows import pooled
from fljax.data.splits.subjects import numbered_subjects, read_subjects
from fljax.data.splits.test_rows import finished, splits_of_test
from fljax.data.tables import as_array, check_same_columns, check_same_rows

ON_NONFINITE = ("error", "drop", "keep")


def from_arrays(
    x: Any,
    y: Any,
    *,
    client_ids: Any = None,
    x_test: Any = None,
    y_test: Any = None,
    test_client_ids: Any = None,
    partition: str | Partition | None = None,
    num_clients: int | None = None,
    groups: Mapping[str, Sequence | Mapping] | None = None,
    row_groups: Mapping[str, Sequence] | None = None,
    test_row_groups: Mapping[str, Sequence] | None = None,
    seed: int = 0,
    own_test_fraction: float = 0.0,
    split_by: Any = None,
    test_split_by: Any = None,
    feature_skew: str | Skew | None = None,
    concept_shift: str | Skew | None = None,
    label_noise: str | NoiseKind | None = None,
    held_out_fraction: float = 0.0,
    held_out_folds: int | None = None,
    held_out_fold: int | None = None,
    val_fraction: float = 0.0,
    concept_drift: str | None = None,
    num_classes: int | None = None,
    class_names: Sequence[str] | None = None,
    preprocess: Preprocess | None = None,
    on_nonfinite: str = "error",
    name: str = "arrays",
    kind: str = "classification",
    **partition_options,
) -> FederatedDataset:
    """Builds a federated dataset from arrays, lists, or columns of a DataFrame.

    With client ids the clients are those of the data, unless another partition is named. Test rows
    with ids are treated by whether their client trains: rows of training clients become a test set
    over the same clients; rows of other clients become `held_out`, and where no test client trains,
    all test rows also serve as the global test set.

    Nothing changes on the way in but the rounding of floats: a value beyond the type in which JAX
    would hold it is refused, and so is what cannot be read as numbers.

    Args:
      x: [rows, ...] features, in memory or `np.memmap` (which is never copied or converted);
        in-memory 64-bit features are stored as JAX would hold them (32 bits unless x64 is on). A
        DataFrame of numbers is its columns side by side.
      y: [rows] integer labels, stored as int32 unless a memmap, or texts, which are numbered in
        sorted order (see `FederatedDataset.class_names`); for `kind="next_token"`,
        [rows, length] token ids, stored as they are; for `kind="targets"`, [rows, ...] numbers of
        any type, or a dict or tuple of such arrays, for a task of one's own.
      client_ids: [rows] integers or strings, kept as they are.
      x_test: Like x.
      y_test: Like y.
      test_client_ids: [test rows], of the same type as `client_ids`.
      partition: A `Partition`, or the name of one, see `make_partition`. Default: "natural" with
        client ids, "iid" where only `num_clients` is given.
      num_clients: N. Of natural clients, how many to take, chosen by the seed; all by default. The
        training and test rows of those not taken are left out.
      groups: {name: [N] group of each client}, integers or strings, in the order of the clients;
        natural clients are in the order of their sorted ids, all of them. Or {name: {client id:
        group}}.
      row_groups: {name: [rows] group of each row}, integers or texts, such as sex: what the model
        does not see, and metrics are reported by; see `FederatedDataset.row_groups`.
      test_row_groups: The same of the test rows, by the same names.
      seed: Chooses the partition and the validation rows.
      own_test_fraction: Share of its own rows that each client is tested on. Training and test rows
        are then pooled, divided among the clients alike, and each client's own divided by class;
        see `with_own_test`.
      split_by: [rows] the subject of each row, such as a patient, numbers or texts: rows of a
        subject stay with one client, and on one side of every split.
      test_split_by: [test rows], of the same type.
      feature_skew: Gives clients unlike features by domain, see `with_feature_skew`.
      concept_shift: Lets labels mean unlike things to clients, see `with_concept_shift`.
      label_noise: Gives training rows wrong labels, see `with_label_noise`.
      held_out_fraction: Share of the clients that never train, see `with_held_out`.
      held_out_folds, held_out_fold: Hold one of so many folds out instead, the first one unless
        another is named; see `with_fold`.
      val_fraction: Share of the training rows to split off for validation, client by client.
      concept_drift: Lets what clients hold change from round to round, see `with_concept_drift`.
      num_classes: Default: as many as have names, else the largest label plus one.
      class_names: Names of the classes in the order of their numbers, where labels are texts and
        another order than the sorted one is wanted, or where integers have names; of tokens, what
        each stands for.
      preprocess: See `FederatedDataset`.
      on_nonfinite: What is done with rows that hold a NaN or an infinity: "error" refuses them with
        their place, "drop" leaves them out and warns of how many, "keep" leaves them to
        `preprocess`. Of a memmap above 1 GiB, evenly spaced rows are looked at.
      name: For logs and records.
      kind: "classification", "next_token" or "targets".
      **partition_options: Such as `alpha`, `shards_per_client`, `min_partition_size`, or
        `rows_per_client`, which any partition takes.

    Returns:
      The dataset.

    Raises:
      ValueError: If lengths, types, labels or ids do not fit, a value is not finite or cannot be
        held, or no partition is given.

    Example:
      >>> x, y = np.random.default_rng(0).normal(size=(6, 2)), [0, 1, 0, 1, 0, 1]
      >>> data.from_arrays(x, y, client_ids=['a', 'a', 'b', 'b', 'c', 'c'])
      FederatedDataset('arrays': classification, 2 classes, 3 clients, rows: train 6)
    """
    _check_kinds(kind, on_nonfinite, partition, preprocess, groups)
    check_options(partition, partition_options, from_arrays)
    named = partition if isinstance(partition, str) else None
    num_classes = checked("num_classes", num_classes, Field(None, int, COUNT, optional=True))
    seed = partition_setting("seed", seed)
    own_test_fraction = partition_setting("own_test_fraction", own_test_fraction)
    held_out_fraction = partition_setting("held_out_fraction", held_out_fraction)
    val_fraction = partition_setting("val_fraction", val_fraction)
    num_clients = partition_setting("num_clients", num_clients)
    check_same_rows(x, client_ids, "x", "client_ids")
    check_same_rows(x_test, test_client_ids, "x_test", "test_client_ids")
    if kind == "targets" and num_classes is not None:
        raise ValueError(f"num_classes = {num_classes}, but targets have no classes: leave it out")
    check_same_columns(x, x_test, "x", "x_test")
    train = read(x, y, client_ids, "", kind)
    if not train.size:
        raise ValueError(f"{name!r} has no training rows")
    if preprocess is None and kind != "next_token":
        check_raw(train.x)
    test = _test_rows(x_test, y_test, test_client_ids, kind)
    row_group_names, of_train, of_test = numbered(
        row_groups, test_row_groups, train.size, None if test is None else test.size
    )
    subjects = read_subjects(split_by, train.size, "split_by")
    train = train._replace(groups=of_train, subjects=subjects)
    if test is not None:
        subjects = read_subjects(test_split_by, test.size, "test_split_by")
        test = test._replace(groups=of_test, subjects=subjects)
    pools = bool(own_test_fraction) and test is not None
    if pools and isinstance(partition, Partition):
        raise ValueError(
            "own_test_fraction divides test rows among the clients, and a ready partition does "
            "that already: give all rows as x and y, and leave x_test and y_test out"
        )
    ids_of_rows = _ids_of_rows(train, test, pools)
    everyone = None if ids_of_rows is None else np.unique(ids_of_rows)
    dropped = {}
    if on_nonfinite != "keep":
        ready = partition if isinstance(partition, Partition) else None
        train, dropped["train"] = finite(train, "", on_nonfinite, kind, ready)
        if test is not None:
            test, dropped["test"] = finite(test, "_test", on_nonfinite, kind)
    examples, test_examples, num_classes, class_names = _examples(
        train, test, kind, num_classes, class_names
    )

    is_natural = is_natural_name(named) or (partition is None and train.ids is not None)
    ids, present, ids_of_rows = None, everyone, _ids_of_rows(train, test, pools)
    of_test = None if test is None else test.subjects
    subjects = numbered_subjects(train.subjects, of_test, pools)
    if pools:
        examples, test, test_examples = pooled(examples, test_examples), None, None
    if is_natural:
        if ids_of_rows is None:
            raise ValueError(
                f"{name!r} has no natural clients: give client_ids"
                + (" and test_client_ids, since own_test_fraction pools all rows" if pools else "")
                + ", or name another partition"
            )
        present = np.unique(ids_of_rows) if dropped else everyone
        ids = present[chosen_clients(len(present), num_clients, seed)]
        partition = partition or "natural"
    _warn_of_dropped(name, dropped, everyone, ids_of_rows)
    given = num_clients, seed, ids_of_rows, subjects, partition_options
    chosen = _partition(partition, examples, *given)
    test_split, held_out, held_out_ids = test_examples and Split(test_examples), None, None
    if test is not None and test.ids is not None:
        test_ids, owner = unique_ids(test.ids, test.size, "test_client_ids")
        owned = Split(test_examples, partition_by_owner(owner, len(test_ids)))
        test_split, held_out, held_out_ids = splits_of_test(owned, test_ids, present, ids)
    dataset = FederatedDataset(
        name=name,
        kind=kind,
        num_classes=num_classes,
        train=Split(examples, chosen),
        test=test_split,
        held_out=held_out,
        client_ids=ids,
        held_out_ids=held_out_ids,
        groups={
            key: _group(key, values, everyone, ids, chosen.num_clients)
            for key, values in (groups or {}).items()
        },
        held_out_groups=_held_out_groups(groups or {}, held_out_ids),
        preprocess=preprocess,
        class_names=class_names,
        dropped={role: rows for role, rows in dropped.items() if rows},
        row_groups=row_group_names,
        feature_names=None if train.columns is None else tuple(train.columns),
        subjects=subjects,
    )
    return finished(
        dataset, seed, own_test_fraction, feature_skew, concept_shift, label_noise,
        held_out_fraction, held_out_folds, held_out_fold, val_fraction, concept_drift,
    )  # fmt: skip


def _ids_of_rows(train: Rows, test: Rows | None, pools: bool) -> np.ndarray | None:
    """Returns the client ids of all rows that clients train on or, where both are pooled, own."""
    if not pools or train.ids is None:
        return train.ids
    if test.ids is None:
        return None
    places_among(train.ids[:1], test.ids)  # refuses ids of unlike types
    return np.concatenate([train.ids, test.ids])


def _check_kinds(kind, on_nonfinite, partition, preprocess, groups) -> None:
    """Raises ValueError for arguments of `from_arrays` of another kind, before rows are read."""
    checked("kind", kind, Field("classification", str, KINDS))
    checked("on_nonfinite", on_nonfinite, Field("error", str, ON_NONFINITE))
    if not isinstance(partition, str | Partition | None):
        raise wrong("partition", partition, f"a Partition, or one of {', '.join(PARTITIONERS)}")
    if isinstance(partition, str):
        call_of(partition)
    if not (preprocess is None or callable(preprocess)):
        raise wrong("preprocess", preprocess, "a function from a batch to a batch, or None")
    if not isinstance(groups, Mapping | None):
        raise wrong("groups", groups, "{name: group of each client}, or None")


def _test_rows(x_test, y_test, test_client_ids, kind: str) -> Rows | None:
    """Returns the test rows, or None where there are none."""
    if x_test is None and y_test is None:
        if test_client_ids is not None:
            raise ValueError("test_client_ids were given without x_test and y_test")
        return None
    if x_test is None or y_test is None:
        raise ValueError("x_test and y_test go together, but only one was given")
    test = read(x_test, y_test, test_client_ids, "_test", kind)
    if not test.size:
        raise ValueError("x_test has no rows: leave x_test and y_test out")
    return test


def _warn_of_dropped(name: str, dropped: Mapping[str, int], everyone, ids) -> None:
    """Says how many rows were dropped, and whose."""
    found = [f"{rows} {role} rows" for role, rows in dropped.items() if rows]
    if not found:
        return
    gone = [] if everyone is None else np.setdiff1d(everyone, ids)
    whose = f" No row is left of client {some_of(gone)}." if len(gone) else ""
    warnings.warn(
        f"{name!r}: {' and '.join(found)} hold a NaN or an infinity and were dropped.{whose}",
        stacklevel=3,
    )


def _examples(train: Rows, test: Rows | None, kind: str, num_classes, class_names):
    """Returns (train examples, test examples or None, number of classes, their names)."""
    if kind == "classification":
        y, y_test, num_classes, names = encode(
            train.y, None if test is None else test.y, num_classes, class_names
        )
    else:
        y, y_test, names = train.y, None if test is None else test.y, None
        if class_names is not None and kind == "targets":
            raise ValueError("class_names are for classes and tokens, and targets have none")
        if kind == "next_token":
            given = num_classes or (None if class_names is None else len(class_names))
            num_classes = _num_tokens([train, test], given)
            names = None if class_names is None else tuple(map(str, class_names))
    examples = ArrayExamples({"x": train.x, "y": y, **_beside(train)})
    if test is None:
        return examples, None, num_classes, names
    arrays = {"x": _as_trained(test.x, train.x), "y": y_test, **_beside(test)}
    test_examples = ArrayExamples(arrays)
    given, wanted = named_arrays(test_examples.spec), named_arrays(examples.spec)
    if given.keys() != wanted.keys():
        raise ValueError(
            f"a test row holds {', '.join(given)}, but a training row {', '.join(wanted)}"
        )
    for key, expected in wanted.items():
        other, (part, *path) = given[key], key.split("/")
        if other.shape != expected.shape or other.dtype != expected.dtype:
            raise ValueError(
                f"a row of {'/'.join([f'{part}_test', *path])} is {other.dtype}"
                f"{list(other.shape)}, but a training row is {expected.dtype}{list(expected.shape)}"
            )
    return examples, test_examples, num_classes, names


def _beside(rows: Rows) -> dict[str, Any]:
    """Returns what examples hold beside x and y."""
    return {"groups": dict(rows.groups)} if rows.groups else {}


def _as_trained(x_test: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Returns test features that happen to be whole numbers as the floats that training has."""
    is_whole = x_test.dtype.kind in "iub" and x.dtype == np.float32
    return x_test.astype(x.dtype) if is_whole and not isinstance(x_test, np.memmap) else x_test


def _num_tokens(rows: Sequence[Rows | None], given: int | None) -> int:
    """Returns the size of the vocabulary, of inputs and targets alike."""
    arrays = [array for row in rows if row is not None for array in (row.x, row.y) if array.size]
    seen = 1 + max(int(array.max()) for array in arrays)
    if given is not None and given < seen:
        raise ValueError(f"num_classes={given}, but the tokens go up to {seen - 1}")
    return seen if given is None else given


def _partition(partition, examples, num_clients, seed, client_ids, subjects, options) -> Partition:
    """Returns the partition that was given, or builds the one that was named."""
    if isinstance(partition, Partition):
        if num_clients not in (None, partition.num_clients):
            raise ValueError(
                f"num_clients={num_clients}, but the partition has {partition.num_clients} clients"
            )
        if options:
            raise ValueError(f"a ready partition takes no options, but got {', '.join(options)}")
        return partition
    if partition is None and num_clients is None:
        raise ValueError(
            "these data have no clients of their own: give client_ids, or a partition by name and "
            "num_clients, such as partition='dirichlet', num_clients=100, alpha=0.3"
        )
    y = examples.arrays["y"]
    labels = y if getattr(y, "ndim", 0) == 1 and y.dtype.kind in "iub" else examples.num_examples
    name = partition or "iid"
    if subjects is not None and not is_natural_name(name):
        return partition_of_subjects(name, labels, subjects, num_clients, seed, options)
    return named_partition(name, labels, num_clients, seed, client_ids, options)


def _held_out_groups(groups: Mapping, ids: np.ndarray | None) -> dict[str, np.ndarray]:
    """Returns the groups of held-out clients, {name: [clients]}, where they are given by id.

    Raises:
      ValueError: If groups name some of them only.
    """
    found = {}
    for key, values in groups.items():
        if ids is None or not isinstance(values, Mapping):
            continue
        missing = [client for client in ids.tolist() if client not in values]
        if not missing:
            chosen = [values[client] for client in ids.tolist()]
            found[key] = as_ids(chosen, len(ids), f"groups[{key!r}]")
        elif len(missing) < len(ids):
            raise ValueError(
                f"the groups {key!r} name some held-out clients, but none of client "
                f"{some_of(missing)}"
            )
    return found


def _group(key: str, values, everyone, ids, num_clients: int) -> np.ndarray:
    """Returns the group of each client, from those of all natural clients or by their id."""
    if isinstance(values, Mapping):
        if ids is None:
            raise ValueError(f"the groups {key!r} are by client id, but the clients have no ids")
        missing = [client for client in ids.tolist() if client not in values]
        if missing:
            raise ValueError(f"the groups {key!r} name no group of client {some_of(missing)}")
        values = [values[client] for client in ids.tolist()]
        return as_ids(values, num_clients, f"groups[{key!r}]")
    size = num_clients if ids is None else len(everyone)
    values = as_array(values, f"groups[{key!r}]")
    if values.shape != (size,):
        raise ValueError(
            f"the groups {key!r} have {len(values)} entries, one for each client, but there are "
            f"{size} clients"
        )
    values = as_ids(values, size, f"groups[{key!r}]")
    return values if ids is None else values[places_among(everyone, ids)]
