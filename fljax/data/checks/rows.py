"""Checks of single rows: numbers that are none, or out of range; rows that stand there twice.

Each check is a function (dataset, settings, equal) -> {role: bool[rows of that split]}, in the
order of the split's `rows()`, and looks at the splits that hold rows of training clients or test
rows. `equal` holds numbers that equal rows share, {role: {"x", "y", "row": uint64[rows]}}.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fljax.data.checks.reading import blocks, hashes
from fljax.data.checks.settings import Settings
from fljax.data.dataset import ROLES, FederatedDataset, Split
from fljax.data.values import nonfinite_rows

Marks = Mapping[str, np.ndarray]
Equal = Mapping[str, Mapping[str, np.ndarray]]
_OTHERS = ("val", "test", "held_out")


def nonfinite(dataset: FederatedDataset, settings: Settings, equal: Equal) -> Marks:
    """Marks rows with a NaN or an infinity in x or y."""
    del settings, equal
    return {
        role: _any(split, lambda name, values: nonfinite_rows(values))
        for role, split in splits(dataset).items()
    }


def out_of_range(dataset: FederatedDataset, settings: Settings, equal: Equal) -> Marks:
    """Marks rows with a finite value of x outside `settings.value_range`."""
    del equal
    if settings.value_range is None:
        return {}
    low, high = settings.value_range

    def outside(name, values):
        if name.partition("/")[0] != "x":
            return np.zeros(len(values), bool)
        flat = values.reshape(len(values), -1)
        return (np.isfinite(flat) & ((flat < low) | (flat > high))).any(1)

    return {role: _any(split, outside) for role, split in splits(dataset).items()}


def duplicates(dataset: FederatedDataset, settings: Settings, equal: Equal) -> Marks:
    """Marks training rows that a client has once more, earlier: the same x and the same y."""
    del settings
    return {"train": _again(dataset.train.partition.owners(), equal["train"]["row"])}


def shared(dataset: FederatedDataset, settings: Settings, equal: Equal) -> Marks:
    """Marks training rows that another client has as well."""
    del settings
    owners, found = dataset.train.partition.owners(), equal["train"]["row"]
    order = np.lexsort((owners, found))
    marks = np.zeros(len(found), bool)
    if len(found):
        starts = _starts(found[order])
        first, last = owners[order][starts], owners[order][np.append(starts[1:], len(order)) - 1]
        marks[order] = np.repeat(first != last, np.diff(np.append(starts, len(order))))
    return {"train": marks}


def contradictions(dataset: FederatedDataset, settings: Settings, equal: Equal) -> Marks:
    """Marks training rows of a client that has the same x with another y."""
    del settings
    owners = dataset.train.partition.owners()
    inputs, targets = equal["train"]["x"], equal["train"]["y"]
    order = np.lexsort((targets, inputs, owners))
    marks = np.zeros(len(owners), bool)
    if len(owners):
        pairs = np.stack([owners.astype(np.uint64), inputs], 1)[order]
        starts = np.append(0, 1 + np.flatnonzero((pairs[1:] != pairs[:-1]).any(1)))
        ends = np.append(starts[1:], len(order))
        unlike = targets[order][starts] != targets[order][ends - 1]
        marks[order] = np.repeat(unlike, ends - starts)
    return {"train": marks}


def overlap(dataset: FederatedDataset, settings: Settings, equal: Equal) -> Marks:
    """Marks training rows, x and y, that are among validation, test or held-out rows as well."""
    del dataset, settings
    others = [equal[role]["row"] for role in _OTHERS if role in equal]
    if not others:
        return {}
    return {"train": np.isin(equal["train"]["row"], np.concatenate(others))}


def equal_rows(dataset: FederatedDataset) -> Equal:
    """Returns numbers that equal x, equal y and equal rows share; reads each split once."""
    found = {role: hashes(split) for role, split in splits(dataset).items()}
    return {role: each | {"row": each["x"] + each["y"]} for role, each in found.items()}


def splits(dataset: FederatedDataset) -> dict[str, Split]:
    """Returns {role: split} of the splits that are there."""
    found = {role: getattr(dataset, role) for role in ROLES}
    return {role: split for role, split in found.items() if split is not None}


def _any(split: Split, wrong) -> np.ndarray:
    """Returns bool[rows of a split], true where `wrong(name, values)` is of one of its arrays."""
    marks = np.zeros(split.num_rows, bool)
    for where, arrays in blocks(split):
        for name, values in arrays.items():
            marks[where] |= wrong(name, values)
    return marks


def _starts(ordered: np.ndarray) -> np.ndarray:
    """Returns where runs of equal values begin in a vector that has some."""
    return np.append(0, 1 + np.flatnonzero(ordered[1:] != ordered[:-1]))


def _again(owners: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Returns bool[rows], true where an owner has the same number at an earlier row."""
    order = np.lexsort((found, owners))  # stable: of equal rows the first one stays first
    same = (owners[order][1:] == owners[order][:-1]) & (found[order][1:] == found[order][:-1])
    marks = np.zeros(len(owners), bool)
    marks[order[1:]] = same
    return marks
