"""Describes a data set to people: splits, clients, rows per client, example shapes."""

from __future__ import annotations

import numpy as np

from fljax.core.digits import counted
from fljax.data.dataset import ROLES, FederatedDataset
from fljax.data.examples import shapes


def described(dataset: FederatedDataset) -> str:
    """Returns a few lines about a data set.

    Example:
      >>> print(described(data.from_arrays(np.eye(3), [0, 1, 1], client_ids=[0, 0, 1])))
      arrays: classification, 2 classes, 2 clients
        train             3 rows, over 2 clients
        rows per client: min 1, median 1.5, mean 1.5, max 2
        example: x float64[3], y int64
    """
    sizes = dataset.train.partition.sizes[: dataset.members]
    classes = "" if dataset.num_classes is None else f", {dataset.num_classes:,} classes"
    lines = [f"{dataset.name}: {dataset.kind}{classes}, {dataset.members} clients"]
    for role in ROLES:
        split = getattr(dataset, role)
        if split is None:
            continue
        owners, num_rows = "global", split.num_rows
        if split.partition is not None:
            owners = f"over {split.partition.num_clients} clients"
        if split.partition is not None and not role.startswith("held_out"):
            owners = f"over {dataset.members} clients"
            num_rows = int(split.partition.sizes[: dataset.members].sum())
        width = 8 if dataset.held_out_train is None else 14
        lines.append(f"  {role:<{width}} {num_rows:>10} rows, {owners}")
    if sizes.size:
        lines.append(
            f"  rows per client: min {sizes.min()}, median {np.median(sizes):g}, "
            f"mean {sizes.mean():.1f}, max {sizes.max()}"
        )
    if dataset.root is not None:
        lines.append(f"  root: {counted(_root_rows(dataset), 'row')} of the server's own")
    return "\n".join([*lines, *_facts(dataset)])


def _root_rows(dataset: FederatedDataset) -> int:
    return int(dataset.train.partition.sizes[dataset.root])


def _facts(dataset: FederatedDataset) -> list[str]:
    """Returns what else is to be known of rows and clients, and the shapes of an example."""
    lines = []
    if dataset.moves:
        lines.append("  what clients own changes over the rounds; this is round 0")
    if dataset.noisy_labels is not None:
        count = len(dataset.noisy_labels.rows)
        lines.append(f"  wrong labels: {counted(count, 'row')} of those that clients train on")
    if dataset.subjects is not None:
        count = len(np.unique(dataset.subjects))
        lines.append(f"  rows are of {counted(count, 'subject')}, and stay together by subject")
    lines += [f"  left out as not whole: {n} rows of {role}" for role, n in dataset.dropped.items()]
    lines += [
        f"  left out by checks: {n} rows of {role}"
        for role, n in dataset.checks.get("dropped_rows", {}).items()
    ]
    if gone := dataset.checks.get("excluded_clients"):
        lines.append(f"  left out by checks: {counted(len(gone), 'client')}")
    stored, seen = shapes(dataset.train.examples.spec), shapes(dataset.spec)
    lines.append(f"  example: {stored}" + ("" if stored == seen else f"; model sees {seen}"))
    return lines
