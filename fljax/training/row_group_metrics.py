"""Reports evaluations by groups of rows: each group's metrics, and gaps between groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from fljax.core import fairness
from fljax.core.metrics import ACCURACY, Metric, Sum, group_metrics
from fljax.data.dataset import FederatedDataset, Split

# Populations above this size have gaps without intervals, which would take seconds.
_MOST_RESAMPLED = 10_000


class GroupedRows(NamedTuple):
    """The rows of an evaluation, as groups of them are judged.

    Attributes:
      names: {name of the groups: the text of each value}.
      groups: {name: int[R] number of each row's value}.
      y: int[R] of tasks of two classes, else None.
      owners: int[R] client of each row, or None.
      num_owners: Size of the population of owners.
    """

    names: Mapping[str, tuple[str, ...]]
    groups: Mapping[str, np.ndarray]
    y: np.ndarray | None
    owners: np.ndarray | None
    num_owners: int


def grouped_rows(
    dataset: FederatedDataset,
    split: Split,
    owners: np.ndarray | None,
    num_owners: int,
    rows: np.ndarray | None = None,
) -> GroupedRows:
    """Returns the rows of a split, in the order in which they are evaluated.

    Args:
      dataset: The data.
      split: One of its splits.
      owners: int[R] client of each row, or None.
      num_owners: Size of the population of owners.
      rows: int[R] which of the split's examples; None takes `split.rows()`.
    """
    rows = split.rows() if rows is None else rows
    arrays = split.examples.arrays or split.examples.take(rows)
    if split.examples.arrays is not None:
        arrays = {
            "groups": {name: values[rows] for name, values in arrays["groups"].items()},
            "y": arrays["y"][rows] if dataset.num_classes == 2 else None,
        }
    groups = {name: np.asarray(values).astype(int) for name, values in arrays["groups"].items()}
    y = np.asarray(arrays["y"]) if _is_binary(dataset) else None
    return GroupedRows(dataset.row_groups, groups, y, owners, num_owners)


def row_group_record(
    metrics: Sequence[Metric], sums: Mapping[str, Sum], rows: GroupedRows
) -> dict[str, float]:
    """Returns what records say of groups of rows.

    Args:
      metrics: Of the task.
      sums: {name: Sum of [R]}, as measured.
      rows: The same rows.

    Returns:
      {"groups/NAME/VALUE/METRIC"}; with two classes also rates of `fairness.RATES` in place of
      METRIC, "fairness/NAME/GAP", and where clients own the rows "fairness/NAME/GAP/low" and
      ".../high", the interval over clients.
    """
    record = {}
    for name, texts in rows.names.items():
        of_row = rows.groups[name]
        found = group_metrics(metrics, sums, of_row, np.arange(len(texts)))
        record |= {
            f"groups/{name}/{texts[value]}/{key}": number
            for value, values in found.items()
            for key, number in values.items()
        }
        if rows.y is not None and ACCURACY.name in sums:
            record |= _gaps(name, texts, np.asarray(sums[ACCURACY.name][0]), of_row, rows)
    return record


def row_group_keys(dataset: FederatedDataset, metrics: Sequence[Metric]) -> list[str]:
    """Returns the keys that `row_group_record` writes, as far as groups have rows."""
    judged = [metric.name for metric in metrics if not metric.of_counts]
    binary = _is_binary(dataset) and ACCURACY.name in judged
    judged += [name for name in fairness.RATES if binary and name not in judged]
    keys = [
        f"groups/{name}/{text}/{key}"
        for name, texts in dataset.row_groups.items()
        for text in texts
        for key in judged
    ]
    gaps = fairness.GAPS if binary else ()
    return keys + [f"fairness/{name}/{gap}" for name in dataset.row_groups for gap in gaps]


def _is_binary(dataset: FederatedDataset) -> bool:
    return dataset.num_classes == 2 and dataset.kind == "classification"


def _gaps(name, texts, right: np.ndarray, of_row: np.ndarray, rows: GroupedRows):
    """Returns the rates of each group, and the gaps between them."""
    counts = fairness.counts_of(right, rows.y, of_row, len(texts))
    record = {
        f"groups/{name}/{text}/{rate}": float(values[number])
        for rate, values in fairness.rates(counts).items()
        for number, text in enumerate(texts)
        if counts.rows[number]
    }
    for gap, value in fairness.gaps(counts).items():
        record[f"fairness/{name}/{gap}"] = float(value)
    if rows.owners is None or not 1 < rows.num_owners <= _MOST_RESAMPLED:
        return record
    by_client = fairness.counts_of(right, rows.y, of_row, len(texts), rows.owners, rows.num_owners)
    for gap, (low, high) in fairness.intervals(by_client).items():
        record |= {
            f"fairness/{name}/{gap}/low": low,
            f"fairness/{name}/{gap}/high": high,
        }
    return record
