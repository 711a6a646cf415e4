"""What partitioners and loaders check and prepare: labels, counts."""

from __future__ import annotations

import numpy as np


def row_count(labels: np.ndarray | int) -> int:
    """Returns the number of rows that labels, or a plain number, stand for."""
    return int(labels) if np.ndim(labels) == 0 else len(labels)


def class_labels(labels: np.ndarray) -> np.ndarray:
    """Returns int64[rows] labels, or raises ValueError if there is not one integer per row."""
    labels = np.asarray(labels)
    if labels.ndim != 1 or labels.dtype.kind not in "iub":
        raise ValueError(
            "this partition needs one integer label per row, not an array of shape "
            f"{list(labels.shape)} and type {labels.dtype}: partitions by label are for "
            "classification (iid, quantity and natural work without labels)"
        )
    return labels.astype(np.int64)


def rows_by_class(labels: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    """Returns the rows of each class that occurs, shuffled; a list of int64 vectors."""
    order = rng.permutation(labels.size)
    order = order[np.argsort(labels[order], kind="stable")]
    return np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)


def check_count(name: str, value: int, least: int = 1) -> None:
    """Raises ValueError unless the value is an integer of at least `least`."""
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name} must be an integer of at least {least}, not {value!r}")


def check_room(num_rows: int, num_clients: int, min_partition_size: int) -> None:
    """Raises ValueError if the rows do not suffice for the clients."""
    check_count("num_clients", num_clients)
    check_count("min_partition_size", min_partition_size, least=0)
    if num_rows == 0:
        raise ValueError("there are no rows to divide among clients")
    if num_clients * min_partition_size > num_rows:
        raise ValueError(
            f"{num_clients} clients x min_partition_size={min_partition_size} need "
            f"{num_clients * min_partition_size} rows, but there are only {num_rows}: use fewer "
            "clients or a smaller min_partition_size (0 allows clients without rows)"
        )
