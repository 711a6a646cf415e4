"""Checks the arguments of partitioners and loaders: labels, counts."""

from __future__ import annotations

from typing import Any

import numpy as np

from fljax.core.settings import DATA
from fljax.core.values import NON_NEGATIVE, Field, Interval, checked, wrong


def row_count(labels: np.ndarray | int) -> int:
    """Returns the number of rows that labels, or a plain number, stand for."""
    if np.ndim(_as_array(labels)) == 0:
        return checked("labels", labels, Field(None, int, NON_NEGATIVE))
    return len(labels)


def class_labels(labels: np.ndarray) -> np.ndarray:
    """Returns int64[rows] labels, or raises ValueError if there is not one integer per row."""
    labels = _as_array(labels)
    if labels.ndim != 1 or labels.dtype.kind not in "iub":
        found = "there are none"
        if labels.ndim:
            found = f"labels cannot be an array of shape {list(labels.shape)} and {labels.dtype}"
        raise ValueError(
            f"this partition needs one integer label per row, and {found}: partitions by label are "
            "for classification (iid, quantity and natural work without labels)"
        )
    return labels.astype(np.int64)


def _as_array(labels) -> np.ndarray:
    try:
        return np.asarray(labels)
    except ValueError:
        raise wrong("labels", labels, "one integer per row, or the number of rows") from None


def rows_by_class(labels: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    """Returns the rows of each class that occurs, shuffled; a list of int64 vectors."""
    order = rng.permutation(labels.size)
    order = order[np.argsort(labels[order], kind="stable")]
    return np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)


def check_count(name: str, value: int, least: int = 1) -> int:
    """Returns a whole number as an int; raises ValueError unless it is at least `least`."""
    return checked(name, value, Field(None, int, Interval(least)))


def partition_setting(name: str, value: Any) -> Any:
    """Returns a setting of a partition; raises ValueError unless it is what it may be."""
    field = DATA["data_seed" if name == "seed" else name]
    return checked(name, value, field._replace(optional=name == "num_clients"))


def check_room(
    num_rows: int, num_clients: int, min_partition_size: int, seed: int
) -> tuple[int, int, int]:
    """Returns (num_clients, min_partition_size, seed) as integers.

    Raises:
      ValueError: If they are none, or the rows do not suffice for the clients.
    """
    num_clients = check_count("num_clients", num_clients)
    min_partition_size = partition_setting("min_partition_size", min_partition_size)
    seed = partition_setting("seed", seed)
    if num_rows == 0:
        raise ValueError("there are no rows to divide among clients: labels is empty")
    if num_clients * min_partition_size > num_rows:
        raise ValueError(
            f"{num_clients} clients x min_partition_size={min_partition_size} need "
            f"{num_clients * min_partition_size} rows, but there are only {num_rows}: use fewer "
            "clients or a smaller min_partition_size (0 allows clients without rows)"
        )
    return num_clients, min_partition_size, seed
