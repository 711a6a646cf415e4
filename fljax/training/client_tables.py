"""Tabulates evaluated clients: their ids as given, whether they trained, their groups."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fljax.core.metrics import Metric, Sum, group_metrics
from fljax.data.dataset import FederatedDataset
from fljax.data.heterogeneity.label_noise import wrong_label_shares

TRAINING, HELD_OUT = "training", "held_out"
# Whose own models records judge under which name.
POPULATIONS = {"personal": TRAINING, "new_clients": HELD_OUT}
# Groups with more values are told apart in client_metrics.npz alone.
_MOST_VALUES = 100


def population_of(split: str) -> str:
    """Returns whose rows the split of a data set holds."""
    return HELD_OUT if split == "held_out" else TRAINING


def identified(
    clients: Mapping[str, np.ndarray], dataset: FederatedDataset, population: str
) -> dict[str, np.ndarray]:
    """Returns the metrics of clients, with who they are.

    Args:
      clients: As `fljax.core.metrics.client_metrics` returns them.
      dataset: Whose clients they are.
      population: "training" or "held_out".

    Returns:
      The arrays, and beside them "id" [K] as given with the data (the client's number where the
      data have no ids), "split" [K] the population, "groups/NAME" [K], and "wrong_labels" [K], the
      share of their training rows that were given wrong labels, where such were (NaN of held-out
      clients).
    """
    numbers = clients["client"]
    ids = dataset.client_ids if population == TRAINING else dataset.held_out_ids
    groups = dataset.groups if population == TRAINING else dataset.held_out_groups
    wrong = {}
    if dataset.noisy_labels is not None:
        wrong["wrong_labels"] = np.full(len(numbers), np.nan)
        if population == TRAINING:
            wrong["wrong_labels"] = wrong_label_shares(dataset)[numbers]
    return {
        **clients,
        **wrong,
        "id": numbers if ids is None else np.asarray(ids)[numbers],
        "split": np.full(len(numbers), population),
        **{f"groups/{name}": np.asarray(values)[numbers] for name, values in groups.items()},
    }


def joined(tables: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Returns several tables as one; texts where types differ, "" where one lacks a column."""
    if len(tables) <= 1:
        return dict(*tables)
    names = list(dict.fromkeys(name for table in tables for name in table))
    return {name: _column([_of(table, name) for table in tables]) for name in names}


def _of(table: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    return table[name] if name in table else np.full(len(table["client"]), "")


def _column(parts: Sequence[np.ndarray]) -> np.ndarray:
    dtypes = {part.dtype for part in parts}
    if len(dtypes) > 1 and not all(dtype.kind == "U" for dtype in dtypes):
        parts = [np.array([as_text(value) for value in part.tolist()], str) for part in parts]
    return np.concatenate(parts)


def recorded_groups(dataset: FederatedDataset) -> dict[str, np.ndarray]:
    """Returns the groups of clients that records report on; warns of those with too many values."""
    found = {}
    for name, values in dataset.groups.items():
        count = len(np.unique(values))
        if count <= _MOST_VALUES:
            found[name] = np.asarray(values)
            continue
        warnings.warn(
            f"The groups {name!r} have {count} values, too many for the records of each round; "
            "client_metrics.npz has the group of each client, where eval_clients is set.",
            stacklevel=3,
        )
    return found


def groups_of(dataset: FederatedDataset, population: str) -> dict[str, np.ndarray]:
    """Returns the recorded groups of "training" or "held_out" clients, without a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those with too many values are told of once
        recorded = recorded_groups(dataset)
    known = dataset.groups if population == TRAINING else dataset.held_out_groups
    return {name: np.asarray(known[name]) for name in recorded if name in known}


def group_record(
    metrics: Sequence[Metric],
    sums: Mapping[str, Sum],
    owners: np.ndarray,
    groups: Mapping[str, np.ndarray],
) -> dict[str, float]:
    """Returns {"groups/NAME/VALUE/METRIC": number} of rows by the groups of their clients.

    Args:
      metrics: Of the task.
      sums: {name: Sum of [R]}, as measured.
      owners: int[R] client of each row.
      groups: {name: [N] group of each client}.
    """
    return {
        f"groups/{name}/{as_text(value)}/{key}": number
        for name, values in groups.items()
        for value, found in group_metrics(metrics, sums, owners, values).items()
        for key, number in found.items()
    }


def group_keys(metrics: Sequence[Metric], groups: Mapping[str, np.ndarray]) -> list[str]:
    """Returns the keys that `group_record` writes, as far as groups have rows."""
    return [
        f"groups/{name}/{as_text(value)}/{metric.name}"
        for name, values in groups.items()
        for value in np.unique(values).tolist()
        for metric in metrics
        if not metric.of_counts
    ]


def as_text(value: Any) -> str:
    """Returns an id or a group as a text."""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
