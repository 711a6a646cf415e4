"""Finds the column of a data set that a query asks about."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import jax

from fljax.core.values import shown
from fljax.data.dataset import FederatedDataset
from fljax.data.examples import batch_spec

# "x", "x[3]", "x/age": names, and a place
_COLUMN = re.compile(r"([^\[\]]+)(?:\[(\d+)\])?")
# What batches hold beside x and y.
_BESIDE = ("mask", "size", "groups")


def column_of(
    dataset: FederatedDataset, column: str
) -> tuple[Callable[[Mapping[str, Any]], jax.Array], jax.ShapeDtypeStruct]:
    """Returns ((batch) -> values[B, ...] of a column, shape and type of one value).

    Args:
      dataset: The federated data.
      column: "x", "y", "x[3]", the name of a feature, or "x/age" where x is a dict.

    Raises:
      ValueError: If there is no such column.

    Example:
      >>> clients = data.from_arrays(np.eye(4), [0, 1, 0, 1], num_clients=2)
      >>> values_of, like = column_of(clients, "x[2]")
      >>> like.shape, like.dtype.name
      ((), 'float32')
    """
    names, place = _parsed(dataset, column)

    def rows_of(batch):
        rows: Any = {name: values for name, values in batch.items() if name not in _BESIDE}
        return rows if dataset.preprocess is None else dataset.preprocess(rows)

    def values_of(batch):
        found = rows_of(batch)
        for name in names:
            found = found[name]
        return found if place is None else found[:, place]

    shapes = jax.eval_shape(rows_of, batch_spec(dataset.train.examples.spec, 1))
    found: Any = shapes
    for name in names:
        found = found.get(name) if isinstance(found, Mapping) else None
    shape = getattr(found, "shape", None)
    if shape is None or (place is not None and (len(shape) < 2 or place >= shape[1])):
        raise ValueError(
            f"column = {shown(column)}: rows of {dataset.name!r} have no such column. They are "
            f"{_described(shapes)}"
            + (
                f", with the features {shown(dataset.feature_names)}"
                if dataset.feature_names
                else ""
            )
            + "; name one as 'y', 'x[0]', by a feature's name, or as 'x/NAME' where x is a dict."
        )
    kept = shape[1:] if place is None else shape[2:]
    return values_of, jax.ShapeDtypeStruct(kept, found.dtype)


def _parsed(dataset: FederatedDataset, column: str) -> tuple[list[str], int | None]:
    """Returns (names on the way to an array, a place in its rows or None)."""
    if dataset.feature_names and column in dataset.feature_names:
        return ["x"], dataset.feature_names.index(column)
    found = _COLUMN.fullmatch(column) if isinstance(column, str) else None
    if found is None:
        return [""], None
    return found[1].split("/"), None if found[2] is None else int(found[2])


def _described(shapes: Mapping[str, Any]) -> str:
    leaves = jax.tree_util.tree_leaves_with_path(shapes)
    return ", ".join(
        f"{'/'.join(str(key.key) for key in path if hasattr(key, 'key'))} "
        f"{leaf.dtype}{list(leaf.shape[1:])}"
        for path, leaf in leaves
        if getattr(path[0], "key", None) not in _BESIDE
    )
