"""Findings of the checks of data: a table with a line a client, and a few lines for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from fljax.core.digits import counted
from fljax.data.checks import clients, rows
from fljax.data.checks.label_noise import suspect_labels
from fljax.data.checks.settings import Settings, settings_of
from fljax.data.dataset import FederatedDataset, Partition

# name -> function (dataset, settings, numbers of equal rows) -> {role: bool[rows of the split]}
ROW_CHECKS = {
    "nonfinite": rows.nonfinite,
    "out_of_range": rows.out_of_range,
    "duplicates": rows.duplicates,
    "shared": rows.shared,
    "contradictions": rows.contradictions,
    "overlap": rows.overlap,
    "suspect_labels": suspect_labels,
}
# name -> function (dataset, settings, marks of rows) -> bool[N]
CLIENT_CHECKS = {
    "few_rows": clients.few_rows,
    "constant_features": clients.constant_features,
    "odd_labels": clients.odd_labels,
    "noisy_labels": clients.noisy_labels,
}
MEANINGS = {
    "nonfinite": "a NaN or an infinity",
    "out_of_range": "a value out of value_range",
    "duplicates": "the same row of the same client once more",
    "shared": "a row that another client has as well",
    "contradictions": "the same x with another y",
    "overlap": "a training row among validation, test or held-out rows",
    "suspect_labels": "a label on which the nearest rows do not agree",
    "few_rows": "too few training rows",
    "constant_features": "mostly constant features",
    "odd_labels": "labels unlike those of all others",
    "noisy_labels": "many more suspect labels than others",
}
_SHOWN = 20


class Report(NamedTuple):
    """Findings of the checks.

    Attributes:
      dataset: What was looked at.
      rows: {check: {role: bool[rows of the split, in the order of its `rows()`]}}.
      clients: {check: bool[N]} of the clients that train.
      settings: What counted as wrong.

    Example:
      >>> twice = data.from_arrays([[1.0], [1.0], [2.0]], [0, 0, 1], client_ids=[7, 7, 8])
      >>> found = data.check(twice)
      >>> found.counts["duplicates"], found.table()["duplicates"].tolist()
      (1, [1, 0])
    """

    dataset: FederatedDataset
    rows: Mapping[str, Mapping[str, np.ndarray]]
    clients: Mapping[str, np.ndarray]
    settings: Settings

    @property
    def counts(self) -> dict[str, int]:
        """{check: rows, or clients, found}."""
        found = {
            name: sum(int(mark.sum()) for mark in by.values()) for name, by in self.rows.items()
        }
        return found | {name: int(marks.sum()) for name, marks in self.clients.items()}

    def table(self) -> dict[str, np.ndarray]:
        """Returns {column: [N]}: each training client's id, rows, and rows or faults by check.

        Rows are those of the client in any split that the clients own; global sets are nobody's.
        """
        dataset = self.dataset
        ids = dataset.client_ids
        named = np.arange(dataset.num_clients) if ids is None else ids
        columns = {"client": named, "rows": dataset.train.partition.sizes}
        for name, by_role in self.rows.items():
            columns[name] = sum(
                (_by_client(_own(dataset, role), marks) for role, marks in by_role.items()),
                np.zeros(dataset.num_clients, np.int64),
            )
        return columns | {name: marks.astype(np.int64) for name, marks in self.clients.items()}

    def __str__(self) -> str:
        counts = {name: count for name, count in self.counts.items() if count}
        if not counts:
            return f"{self.dataset.name}: no check found anything"
        lines = [f"{self.dataset.name}: what checks found"]
        for name, count in counts.items():
            where = _where(self.rows.get(name, {}))
            unit = "client" if name in self.clients else "row"
            lines.append(f"  {name:<18} {counted(count, unit)}{where}: {MEANINGS[name]}")
        return "\n".join([*lines, *self._worst()])

    def _worst(self) -> list[str]:
        """Returns lines of a table of the clients with most findings."""
        table = self.table()
        shown = [name for name in table if name in self.counts and self.counts[name]]
        total = sum((table[name] for name in shown), np.zeros(len(table["client"]), np.int64))
        order = np.argsort(-total, kind="stable")[:_SHOWN]
        order = order[total[order] > 0]
        if not order.size:
            return []
        names = ["client", "rows", *shown]
        cells = [names, *([str(table[name][i]) for name in names] for i in order)]
        widths = [max(len(row[k]) for row in cells) for k in range(len(names))]
        lines = [
            "  " + "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
            for row in cells
        ]
        more = int((total > 0).sum()) - len(order)
        return [*lines, *([f"  and {counted(more, 'further client')}"] if more else [])]


def check(dataset: FederatedDataset, **settings: Any) -> Report:
    """Looks for what is wrong with data, client by client; changes nothing.

    Args:
      dataset: What is looked at.
      **settings: Of `Settings`: min_rows, value_range, neighbours, share, deviations.

    Raises:
      ValueError: For a setting that is unknown or out of range.

    Example:
      >>> pair = data.from_arrays([[1.0], [2.0]], [0, 1], client_ids=[7, 8])
      >>> print(data.check(pair, min_rows=1))
      arrays: no check found anything
    """
    made = settings_of(settings)
    equal = rows.equal_rows(dataset)
    marks = {name: function(dataset, made, equal) for name, function in ROW_CHECKS.items()}
    found = {name: function(dataset, made, marks) for name, function in CLIENT_CHECKS.items()}
    return Report(dataset, marks, found, made)


def _own(dataset: FederatedDataset, role: str) -> Partition | None:
    """Returns the partition of a split over the clients that train; None of other splits."""
    return None if role.startswith("held_out") else getattr(dataset, role).partition


def _by_client(partition: Partition | None, marks: np.ndarray) -> np.ndarray | int:
    if partition is None:
        return 0
    return np.bincount(partition.owners()[marks], minlength=partition.num_clients)


def _where(by_role: Mapping[str, np.ndarray]) -> str:
    found = [f"{role} {int(marks.sum())}" for role, marks in by_role.items() if marks.any()]
    return f" ({', '.join(found)})" if found else ""
