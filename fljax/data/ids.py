"""Keeps client ids, integers of up to 64 bits or strings, as they were given."""

from __future__ import annotations

from typing import Any

import numpy as np

from fljax.data.tables import as_array, is_missing

_KINDS = {"i": "integers", "u": "integers", "b": "booleans", "U": "strings", "S": "bytes"}


def as_ids(values: Any, num_rows: int, name: str = "client_ids") -> np.ndarray:
    """Returns ids as a vector of integers, booleans, strings or bytes.

    Args:
      values: [rows] array, list or Series.
      num_rows: How many ids there must be.
      name: What they are called, for people.

    Raises:
      ValueError: If the ids are missing for a row, NaN, of mixed types, not one per row, or cannot
        be told apart.
    """
    ids = as_array(values, name)
    if ids.shape != (num_rows,):
        raise ValueError(
            f"{name} must hold one id for each of the {num_rows} rows, but its shape is "
            f"{list(ids.shape)}"
        )
    if ids.dtype.kind == "O":
        ids = _from_objects(ids, name)
    if ids.dtype.kind == "f":
        ids = _from_floats(ids, name)
    if ids.dtype.kind not in _KINDS:
        raise ValueError(f"{name} must be integers or strings, not {ids.dtype}")
    return ids


def unique_ids(
    client_ids: Any, num_rows: int, name: str = "client_ids"
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the different client ids, sorted, and each row's place among them.

    Args, Raises:
      As for `as_ids`; also ValueError if there are no rows.

    Returns:
      (ids[N], int64[rows]).
    """
    ids = as_ids(client_ids, num_rows, name)
    if num_rows == 0:
        raise ValueError("there are no rows, hence no natural clients")
    return np.unique(ids, return_inverse=True)


def places_among(ids: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Returns int64[others], the place of each other id among the ids; -1 where it is not there.

    Args:
      ids: [N] different ids, sorted.
      others: [M] ids of the same kind.

    Raises:
      ValueError: If the ones are numbers and the others strings: none would be found.
    """
    if not _alike(ids.dtype.kind, others.dtype.kind):
        raise ValueError(
            f"client_ids are {ids.dtype}, but test_client_ids are {others.dtype}: convert them to "
            "one type, or no client will be found again"
        )
    if {ids.dtype.kind, others.dtype.kind} == {"i", "u"}:
        # NumPy compares them as floats, to which 2**63 and 2**63 + 1 are one
        place = {int(client): number for number, client in enumerate(ids)}
        return np.array([place.get(int(client), -1) for client in others], np.int64)
    place = np.minimum(np.searchsorted(ids, others), len(ids) - 1)
    return np.where(ids[place] == others, place, -1)


def some_of(ids: np.ndarray, most: int = 5) -> str:
    """Returns the first few ids, and how many more there are, for people."""
    shown = ", ".join(repr(client) for client in np.asarray(ids)[:most].tolist())
    return shown + (f" and {len(ids) - most} more" if len(ids) > most else "")


def _alike(kind: str, other: str) -> bool:
    return kind == other or (kind in "iub" and other in "iub")


def _from_floats(ids: np.ndarray, name: str) -> np.ndarray:
    """Returns whole numbers as integers."""
    missing = np.flatnonzero(np.isnan(ids))
    if missing.size:
        raise ValueError(
            f"{missing.size} of {ids.size} {name} are NaN, the first at row {missing[0]}: "
            "drop these rows or give them an id"
        )
    if np.any(ids != np.floor(ids)):
        raise ValueError(f"{name} must be integers or strings, but some are fractions")
    exact = 2.0 ** (np.finfo(ids.dtype).nmant + 1)
    unsure = np.flatnonzero(np.abs(ids) >= exact)
    if unsure.size:
        raise ValueError(
            f"{name} holds {ids[unsure[0]]!r} at row {unsure[0]}: {ids.dtype} cannot tell integers "
            f"of {exact:.0f} and more apart. Read the column as integers or as strings"
        )
    return ids.astype(np.int64)


def _from_objects(ids: np.ndarray, name: str) -> np.ndarray:
    """Returns an object array of ids as a plain NumPy array of one type."""
    for row, value in enumerate(ids):
        if is_missing(value):
            raise ValueError(
                f"{name}: the id at row {row} is missing ({value!r}): drop such rows or name them"
            )
    values = [value.item() if isinstance(value, np.generic) else value for value in ids]
    types = sorted({type(value).__name__ for value in values})
    if len(types) > 1:
        raise ValueError(f"{name} mix the types {', '.join(types)}: convert them to one")
    if types and types[0] not in ("int", "bool", "float", "str", "bytes"):
        raise ValueError(
            f"{name} must be integers or strings, not {types[0]}: give [str(one) for one in {name}]"
        )
    if types == ["int"]:
        return _integers(values, name)
    plain = np.array(values)
    if plain.dtype.kind in "US" and plain.tolist() != values:
        row = next(r for r, (a, b) in enumerate(zip(plain.tolist(), values, strict=True)) if a != b)
        raise ValueError(
            f"{name}: the id at row {row}, {values[row]!r}, ends in a NUL, which NumPy drops: "
            "strip it"
        )
    return plain


def _integers(values: list[int], name: str) -> np.ndarray:
    low, high = min(values), max(values)
    for dtype in (np.int64, np.uint64):
        if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max:
            return np.array(values, dtype)
    raise ValueError(
        f"{name} go from {low} to {high}, more than 64 bits: give them as strings, "
        f"[str(one) for one in {name}]"
    )
