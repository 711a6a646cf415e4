"""Converts tables and columns of other libraries to NumPy: pandas, polars, SciPy, masked arrays.

No such library is imported: what a table can do tells what it is.
"""

from __future__ import annotations

import numbers
from typing import Any

import jax.numpy as jnp
import numpy as np

from fljax.data.values import place_of


def as_array(values: Any, name: str) -> np.ndarray:
    """Returns an array, a list, a Series or a DataFrame as a NumPy array of a plain type.

    Args:
      values: Of numbers, texts, or Python objects of one kind; `np.memmap` is returned as it is.
      name: What it is called, for people.

    Raises:
      ValueError: If it cannot be one array without losing something; says what to do.
    """
    if isinstance(values, np.memmap):
        return values
    if columns_of(values) is not None:
        return _matrix(values, name)
    if np.ma.isMaskedArray(values):
        return _unmasked(values, name)
    if hasattr(values, "toarray"):
        raise ValueError(f"{name} is a sparse matrix: give {name}.toarray()")
    if hasattr(values, "to_numpy"):
        values = values.to_numpy()
    array = _plain(values, name)
    if array.ndim == 0:
        raise ValueError(
            f"{name} must be an array with one row per example, not {type(values).__name__} of "
            "shape []"
        )
    if array.dtype.kind in "Mm":
        raise ValueError(
            f"{name} holds times ({array.dtype}): make numbers of them, such as "
            f"({name} - {name}.min()) / np.timedelta64(1, 'D')"
        )
    if array.dtype.names:
        raise ValueError(
            f"{name} is a structured array with the fields {', '.join(array.dtype.names)}: give "
            f"np.lib.recfunctions.structured_to_unstructured({name}), or one field"
        )
    return array


def columns_of(values: Any) -> list[str] | None:
    """Returns the names of a DataFrame's columns; None of anything else."""
    if not (hasattr(values, "columns") and hasattr(values, "to_numpy")):
        return None
    return [str(column) for column in values.columns]


def check_same_rows(one: Any, other: Any, name: str, other_name: str) -> None:
    """Raises ValueError where two parts of tables are about different rows, by their indexes."""
    index, others = getattr(one, "index", None), getattr(other, "index", None)
    if not (hasattr(index, "equals") and hasattr(others, "equals")):
        return
    if len(index) == len(others) and not index.equals(others):
        raise ValueError(
            f"{name} and {other_name} have different indexes, so that their rows do not belong "
            f"together one by one: give {other_name}.loc[{name}.index], or .reset_index(drop=True) "
            "of both if they do"
        )


def check_same_columns(one: Any, other: Any, name: str, other_name: str) -> None:
    """Raises ValueError where two tables have other columns, or the same in another order."""
    columns, others = columns_of(one), columns_of(other)
    if columns is None or others is None or columns == others:
        return
    if sorted(columns) == sorted(others):
        raise ValueError(
            f"{other_name} has the columns of {name} in another order: give "
            f"{other_name}[list({name}.columns)]"
        )
    odd = next(column for column in [*columns, *others] if (column in columns) ^ (column in others))
    lacks = other_name if odd in columns else name
    raise ValueError(f"{name} and {other_name} have different columns: {lacks} has no {odd!r}")


def numbers_of(array: np.ndarray, name: str) -> np.ndarray:
    """Returns an array of numbers or booleans; Python objects that are all numbers become such.

    Raises:
      ValueError: If there is something else in it; says where, and what to do.
    """
    if array.dtype.kind in "fiubc" or jnp.issubdtype(array.dtype, np.number):
        return array
    if array.dtype.kind == "O":
        odd = next((i for i, v in np.ndenumerate(array) if not _is_number(v)), None)
        if odd is None:
            numbers = np.array(array.tolist())
            if numbers.dtype.kind == "O":
                kinds = ", ".join(sorted({type(value).__name__ for value in array.ravel()}))
                raise ValueError(
                    f"{name} holds Python numbers ({kinds}) that fit no NumPy type: give "
                    f"{name}.astype(np.float32), if their digits allow it"
                )
            return numbers
        value = array[odd]
    else:
        odd = next((i for i, v in np.ndenumerate(array) if not _reads_as_number(v)), None)
        if odd is None:
            raise ValueError(f"the numbers of {name} are texts: give {name}.astype(np.float32)")
        value = array[odd]
    value = value.item() if isinstance(value, np.generic) else value
    where = place_of(name, odd)
    if is_missing(value):
        raise ValueError(
            f"{where} is missing ({value!r}): drop such rows, or fill them, such as with the mean"
        )
    raise ValueError(
        f"{name} must be an array of numbers, but {where.removeprefix(f'{name}, ')} is {value!r}: "
        "encode such a column, 0 or 1 for each of its values, as pandas.get_dummies and sklearn's "
        "OneHotEncoder do, or make it a number"
    )


def is_missing(value: Any) -> bool:
    """Returns whether a Python object stands for a value that is not there."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(value, float | np.floating) and bool(np.isnan(value))


def _is_number(value: Any) -> bool:
    is_number = isinstance(value, numbers.Number | np.bool_) or np.issubdtype(
        type(value), np.number
    )
    return is_number and not is_missing(value)


def _reads_as_number(text: str | bytes) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _plain(values: Any, name: str) -> np.ndarray:
    """Returns a NumPy array; of a list that NumPy would convert with loss, one of objects."""
    if isinstance(values, np.ndarray):
        array = values
    else:
        try:
            array = np.asarray(values)
        except (ValueError, TypeError) as error:
            raise ValueError(
                f"{name} cannot be made an array of equal rows ({error}): pad or cut them"
            ) from None
        if isinstance(values, list | tuple) and array.dtype.kind in "USf" and array.ndim == 1:
            # 1 and "1" would become one text, and 2**63 and 2**63 + 1 one float
            objects = np.asarray(values, object)
            is_float = all(isinstance(value, float | np.floating) for value in values)
            array = array if is_float else objects
    if array.dtype.kind == "T":
        array = array.astype(object)
    return np.asarray(array)


def _unmasked(values: np.ma.MaskedArray, name: str) -> np.ndarray:
    mask = np.ma.getmaskarray(values)
    if mask.any():
        place = tuple(np.argwhere(mask)[0])
        raise ValueError(
            f"{place_of(name, place)} is masked, as are {mask.sum()} values: fill them "
            f"({name}.filled(0.0)), or drop their rows"
        )
    return as_array(values.data, name)


def _matrix(frame: Any, name: str) -> np.ndarray:
    """Returns the columns of a DataFrame side by side, in the type that holds all of them."""
    columns = columns_of(frame)
    if not columns:
        raise ValueError(f"{name} is a table without columns")
    if twice := next((column for column in columns if columns.count(column) > 1), None):
        raise ValueError(f"{name} has two columns {twice!r}")
    parts = []
    for column in frame.columns:
        called = f"{name}[{column!r}]"
        parts.append(numbers_of(as_array(frame[column], called), called))
    return np.stack(parts, axis=1)
