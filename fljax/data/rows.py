"""Reads rows as users give them into arrays, without loss, and without what is not finite."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fljax.data.dataset import Partition, Split
from fljax.data.examples import each_array, named_arrays
from fljax.data.ids import as_ids
from fljax.data.tables import as_array, check_same_rows, columns_of, numbers_of
from fljax.data.values import (
    check_range,
    first_nonfinite,
    narrowed,
    nonfinite_rows,
    place_of,
    sample,
)

# Pixels reach 255; of other small counts few go so far.
_LARGEST_COUNT = 127
# Whose rows are looked at where an update was not finite, and how many.
_LOOKED_AT_CLIENTS, _LOOKED_AT_ROWS = 5, 10_000


class Rows(NamedTuple):
    """One split as arrays.

    Attributes:
      x: [rows, ...] features.
      y: [rows, ...] labels as they were given, token ids, or other targets: an array, or a dict or
        tuple of arrays.
      ids: [rows] client ids, or None.
      columns: Names of the features, or None.
      groups: {name: int8[rows] number of the row's group}, or None.
      subjects: [rows] the subject of each row, or None.
    """

    x: np.ndarray
    y: Any
    ids: np.ndarray | None
    columns: Sequence[str] | None
    groups: Mapping[str, np.ndarray] | None = None
    subjects: np.ndarray | None = None

    @property
    def size(self) -> int:
        return len(self.x)

    def where(self, kept: np.ndarray) -> Rows:
        """Returns the rows at which a mask is true."""
        ids = None if self.ids is None else self.ids[kept]
        y = each_array(lambda values, name: values[kept], self.y, "y")
        groups = self.groups and {name: values[kept] for name, values in self.groups.items()}
        subjects = None if self.subjects is None else self.subjects[kept]
        return Rows(self.x[kept], y, ids, self.columns, groups, subjects)


def read(x: Any, y: Any, ids: Any, suffix: str, kind: str) -> Rows:
    """Reads one split.

    Args:
      x: [rows, ...] features, as an array, a list or a DataFrame.
      y: [rows, ...] labels.
      ids: [rows] client ids, or None.
      suffix: "" or "_test", for people.
      kind: "classification", "next_token" or "targets".

    Raises:
      ValueError: If something is no array of one value a row, does not fit, or cannot be held.
    """
    columns = columns_of(x)
    if kind == "targets":
        y = each_array(lambda array, name: _targets(x, array, f"x{suffix}", name), y, f"y{suffix}")
    elif isinstance(y, Mapping):
        raise ValueError(
            f"y{suffix} is a dict of {', '.join(map(str, y))}: several targets need kind='targets' "
            "and a task of your own (docs/extending.md)"
        )
    else:
        check_same_rows(x, y, f"x{suffix}", f"y{suffix}")
    if kind != "targets" and (labels := columns_of(y)):
        raise ValueError(
            f"y{suffix} is a table with the columns {', '.join(labels[:9])}: give the one with the "
            f"labels, y{suffix}[{labels[0]!r}]"
        )
    x = numbers_of(as_array(x, f"x{suffix}"), f"x{suffix}")
    if kind != "targets":
        y = as_array(y, f"y{suffix}")
    for name, targets in named_arrays(y, f"y{suffix}").items():
        if len(x) != len(targets):
            raise ValueError(f"x{suffix} has {len(x)} rows, but {name} has {len(targets)}")
    if not all(x.shape[1:]):
        raise ValueError(f"x{suffix} is of shape {list(x.shape)}: its rows hold nothing")
    x = _held(x, f"x{suffix}", columns)
    if kind == "next_token":
        y = _tokens(y, f"y{suffix}")
        _tokens(x, f"x{suffix}", dims=None)
    if ids is not None:
        ids = as_ids(ids, len(x), "test_client_ids" if suffix else "client_ids")
    return Rows(x, y, ids, columns)


def _targets(x: Any, values: Any, x_name: str, name: str) -> np.ndarray:
    """Returns targets of any kind as numbers that JAX can hold."""
    check_same_rows(x, values, x_name, name)
    return _held(numbers_of(as_array(values, name), name), name)


def _held(values: np.ndarray, name: str, columns=None) -> np.ndarray:
    """Returns an array in the type in which JAX would hold it; a memmap stays as it is."""
    if not isinstance(values, np.memmap):
        return narrowed(values, name, columns)
    if not values.dtype.isnative:
        raise ValueError(
            f"{name} is a memmap of big-endian {values.dtype}, which JAX cannot read: store it as "
            f"{values.dtype.newbyteorder('=')}, or give {name}.astype('{values.dtype.name}')"
        )
    check_range(values, name, columns)
    return values


def _tokens(tokens: np.ndarray, name: str, dims: int | None = 2) -> np.ndarray:
    """Returns token ids in the type in which JAX would hold them; refuses what are none."""
    if dims is not None and tokens.ndim != dims:
        raise ValueError(
            f"{name} must be [rows, length] token ids for next_token, not of shape "
            f"{list(tokens.shape)}"
        )
    tokens = numbers_of(tokens, name)
    if tokens.dtype.kind not in "iub":
        raise ValueError(f"{name} must hold integers, token ids, not {tokens.dtype}")
    if tokens.size and tokens.min() < 0:
        raise ValueError(
            f"{name} has the negative token id {tokens.min()}; tokens are 0, 1, 2, ..."
        )
    return _held(tokens, name)


def check_raw(x: np.ndarray) -> None:
    """Refuses features that need a `preprocess`: pixels as bytes, and complex numbers."""
    if x.dtype.kind == "c":
        raise ValueError(
            "x is complex, and losses are not: give np.stack([x.real, x.imag], axis=-1), or a "
            "preprocess that makes it real"
        )
    if x.dtype != np.uint8:
        return
    rows = x[:: max(1, len(x) // 256)]
    if rows.max() > _LARGEST_COUNT:
        raise ValueError(
            f"x holds bytes up to {rows.max()}, as images do, and nothing scales them: give "
            "preprocess=fljax.data.image_scaling(None), which maps them to [0, 1] inside the "
            "program, or x.astype(np.float32) if they are to be trained on as they are"
        )


def finite(
    rows: Rows, suffix: str, on_nonfinite: str, kind: str, partition: Partition | None = None
) -> tuple[Rows, int]:
    """Refuses rows that are not finite, or drops them.

    Args:
      rows: One split.
      suffix: "" or "_test", for people.
      on_nonfinite: "error" or "drop".
      kind: Of "targets", y is looked at as well; labels are whole numbers.
      partition: Of these rows, where it was made before; rows that it leaves out may be anything.

    Returns:
      (the rows that are left, how many were dropped).

    Raises:
      ValueError: If a row is not finite and not to be dropped, or none is finite.
    """
    parts = {f"x{suffix}": rows.x}
    if kind == "targets":
        parts |= named_arrays(rows.y, f"y{suffix}")
    found = {}
    for name, values in parts.items():
        some, numbers = sample(values)
        found[name] = numbers[nonfinite_rows(some)]
        if partition is not None:
            found[name] = np.intersect1d(found[name], partition.all_rows())
    bad = np.unique(np.concatenate(list(found.values())))
    if not bad.size:
        return rows, 0
    name = next(name for name, places in found.items() if places.size)
    values, first = parts[name], int(found[name][0])
    place = (first, *first_nonfinite(np.asarray(values[first : first + 1]))[1:])
    columns = rows.columns if values is rows.x else None
    said = f"{place_of(name, place, columns)} is {np.asarray(values[place]).item()}"
    if on_nonfinite == "error":
        others = f", and {bad.size - 1} further rows are not finite" if bad.size > 1 else ""
        raise ValueError(
            f"{said}{others}: on_nonfinite='drop' leaves such rows out; to fill them, give "
            f"np.nan_to_num({name}), or on_nonfinite='keep' with a preprocess that does it"
        )
    if any(isinstance(part, np.memmap) for part in parts.values()) or partition is not None:
        what = "a memmap is not copied" if partition is None else "the partition numbers all rows"
        raise ValueError(
            f"{said}, and on_nonfinite='drop' cannot leave rows out here, since {what}: give a "
            "partition=Partition(...) without them"
        )
    if bad.size == rows.size:
        raise ValueError(f"{said}, and so is every other row: none is finite")
    kept = np.ones(rows.size, bool)
    kept[bad] = False
    return rows.where(kept), int(bad.size)


def nonfinite_row(split: Split, clients: np.ndarray) -> str:
    """Returns a sentence about a row of some clients that is not finite; empty if none is found.

    Args:
      split: With a partition.
      clients: Their numbers; of each the first rows are looked at.
    """
    for client in clients[:_LOOKED_AT_CLIENTS]:
        rows = split.partition.rows(client)[:_LOOKED_AT_ROWS]
        for name, values in named_arrays(split.examples.take(rows)).items():
            if (place := first_nonfinite(values)) is not None:
                place = (rows[place[0]], *place[1:])
                return f"Its data are not finite: {place_of(name, place)}. "
    return ""
