"""Reads columns of a table as numbers, texts or arrays, and says in which row one cannot.

A missing value is NaN among numbers, null among texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fljax.core.archives import refused
from fljax.data.readers.tables import Batch
from fljax.data.values import first_unheld

# of 18 digits at most, which all fit 64 bits; 1.0 is 1, as where a table was written with gaps
INTEGER = r"^(0|-?[1-9][0-9]{0,17})(\.0*)?$"
TRUTHS = {"true": 1.0, "false": 0.0}


def numbers(batch: Batch, name: str) -> np.ndarray:
    """Returns float64[R] of a column of numbers, truth values, or texts that are numbers.

    Raises:
      ValueError: If a text is no number, or a number is infinite.
    """
    import pyarrow as pa

    column = batch.columns[name]
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    try:
        values = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        row, value = no_number(batch, name)
        why = f"is {value!r}, which is no number"
        if not isinstance(value, str):
            why = f"is {value}, beyond 2**53, up to which floats hold whole numbers"
        raise refused_at(batch, name, row, why) from None
    if np.isinf(values).any():
        row = int(np.flatnonzero(np.isinf(values))[0])
        raise refused_at(batch, name, row, f"is {values[row]}: bring it into a range, or drop it")
    return values


def no_number(batch: Batch, name: str) -> tuple[int, Any]:
    """Returns (row, value) of the first value of a column that is no number.

    Of whole numbers, it is the first one that no float holds.
    """
    listed = batch.columns[name].to_pylist()
    rows = (row for row, value in enumerate(listed) if not (value is None or is_number(value)))
    row = next(rows, 0)
    return row, listed[row]


def truths(batch: Batch, name: str) -> np.ndarray:
    """Returns float64[R] of truth values, or texts that say true or false in any case."""
    import pyarrow.compute as pc

    column = batch.columns[name]
    if str(column.type) not in ("string", "large_string", "string_view"):
        return numbers(batch, name)
    lower = pc.utf8_lower(column)
    known = batch._replace(
        columns={name: pc.if_else(pc.is_null(lower), None, pc.equal(lower, "true"))}
    )
    return numbers(known, name)


def are_numbers(batch: Batch, name: str) -> bool:
    """Returns whether all texts of a column are numbers, or missing."""
    import pyarrow as pa

    try:
        batch.columns[name].cast(pa.float64())
    except pa.ArrowInvalid:
        return False
    return True


def are_integers(batch: Batch, name: str) -> bool:
    """Returns whether all texts of a column are what an integer is written as, or missing."""
    import pyarrow.compute as pc

    return pc.all(pc.match_substring_regex(batch.columns[name], INTEGER)).as_py() is not False


def texts(batch: Batch, name: str) -> Any:
    """Returns a pyarrow array of texts."""
    import pyarrow as pa

    column = batch.columns[name]
    return column.cast(pa.string()) if isinstance(column, pa.Array) else pa.array(column)


def ids(batch: Batch, name: str, kind: str) -> np.ndarray:
    """Returns int64[R] or texts of a column of ids without missing values.

    Args:
      kind: "integer" or "text".
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    column = batch.columns[name]
    if kind == "text":
        return texts(batch, name).to_numpy(zero_copy_only=False)
    if pa.types.is_uint64(column.type):
        return column.to_numpy(zero_copy_only=False)
    if pa.types.is_string(column.type):
        column = pc.replace_substring_regex(column, r"\.0*$", "")
    return column.cast(pa.int64()).to_numpy(zero_copy_only=False)


def classes(batch: Batch, name: str, kind: str) -> np.ndarray:
    """Returns the labels of a column without missing values: int64[R], or texts.

    Raises:
      ValueError: If one is a fraction.
    """
    if kind in ("integer", "text"):
        return ids(batch, name, kind)
    values = numbers(batch, name)
    if np.any(values != np.floor(values)):
        row = int(np.flatnonzero(values != np.floor(values))[0])
        raise refused_at(
            batch, name, row, f"is {values[row]:g}, which is no class: give it as target, not label"
        )
    return values.astype(np.int64)


def vectors(batch: Batch, name: str) -> np.ndarray:
    """Returns [R, ...] of a column whose values are arrays of one shape.

    Args:
      batch: Rows in which nothing is missing.

    Raises:
      ValueError: If one is of another length than the others, or holds what JAX does not.
    """
    column = batch.columns[name]
    values = column if isinstance(column, np.ndarray) else _stacked(batch, name)
    if (found := first_unheld(values)) is not None:
        place, why = found
        raise refused_at(batch, name, place[0], f"holds {why}")
    return values


def _stacked(batch: Batch, name: str) -> np.ndarray:
    """Returns the lists of a column, or lists of lists, as one array."""
    import pyarrow as pa
    import pyarrow.compute as pc

    column = batch.columns[name]
    shape = [len(column)]
    while hasattr(column.type, "value_type"):
        if not len(column):
            raise refused(
                batch.path,
                f"column {name!r}: of the rows from {batch.first} on, that are read at once, each "
                "lacks a value, and no shape is known: drop them beforehand",
            )
        lengths = pc.list_value_length(column)
        odd = pc.not_equal(lengths, lengths[0])
        if pc.any(odd).as_py():
            row = pc.index(odd, True).as_py() // max(1, int(np.prod(shape[1:])))
            raise refused_at(
                batch, name, row,
                "is of another length than those before it: pad or cut them to one length",
            )  # fmt: skip
        shape.append(lengths[0].as_py())
        column = column.flatten()
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.uint8())
    return column.to_numpy(zero_copy_only=False).reshape(shape)


def missing(batch: Batch, names: Sequence[str]) -> np.ndarray:
    """Returns bool[R, names], true where a value, or one inside an array, is not there."""
    found = np.zeros((batch.num_rows, len(names)), bool)
    for place, name in enumerate(names):
        found[:, place] = _lacks(batch.columns[name])
    return found


def _lacks(column: Any) -> np.ndarray:
    """Returns bool[R], whether a value of a column, or of an array in it, is missing."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if isinstance(column, np.ndarray):
        if column.dtype.kind != "f":
            return np.zeros(len(column), bool)
        return np.asarray(np.isnan(column).any(axis=tuple(range(1, column.ndim))))
    is_float = str(column.type) in ("float", "double", "halffloat")
    is_null = pc.is_null(column, nan_is_null=True) if is_float else pc.is_null(column)
    found = np.array(is_null.to_numpy(zero_copy_only=False))
    if hasattr(column.type, "value_type") and not pa.types.is_dictionary(column.type):
        inside = _lacks(column.flatten())
        if inside.any():
            lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy()
            rows = np.repeat(np.arange(len(column)), np.where(found, 0, lengths))
            found[rows[inside]] = True
    return found


def refused_at(batch: Batch, name: str, row: int, why: str) -> ValueError:
    """Returns the error for one value of a batch."""
    return refused(batch.path, f"row {batch.first + row}, column {name!r}: this {why}")


def is_number(value: Any) -> bool:
    """Returns whether a value is a number that floats hold, or a text that says one."""
    if not isinstance(value, str):
        return not isinstance(value, int) or abs(value) <= 2**53
    try:
        float(value)
    except ValueError:
        return False
    return value.isascii() and "_" not in value
