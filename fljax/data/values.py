"""Checks that examples are finite, and such as the devices' types hold.

JAX holds 32 bits unless `jax_enable_x64` is on, and brings wider arrays into them without a word:
2**32 + 5 becomes 5, and 1e300 infinity. Whatever enters a data set is looked at here first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

_CHUNK_VALUES = 1 << 22
# Of larger files, evenly spaced rows are looked at rather than all.
_CHECKED_BYTES = 1 << 30


def narrowed(values: np.ndarray, name: str, columns: Sequence[str] | None = None) -> np.ndarray:
    """Returns an array in the type in which JAX would hold it, and in native byte order.

    Floats are rounded to 32 bits where JAX holds no more. Whatever else would change is refused.

    Args:
      values: Array of numbers or booleans.
      name: What it is called, for people.
      columns: Names of the columns of a table.

    Raises:
      ValueError: If a value lies beyond that type; says which, and what to do.
    """
    target = held_type(values.dtype)
    check_range(values, name, columns)
    return values.astype(target, copy=False)


def held_type(dtype: np.dtype) -> np.dtype:
    """Returns the type in which JAX holds an array, in native byte order."""
    dtype = np.dtype(dtype).newbyteorder("=")
    if dtype in (np.longdouble, np.clongdouble):
        dtype = np.dtype(np.float64 if dtype == np.longdouble else np.complex128)
    return np.dtype(jax.dtypes.canonicalize_dtype(dtype))


def check_range(values: np.ndarray, name: str, columns: Sequence[str] | None = None) -> None:
    """Raises ValueError if a value would change, beyond rounding, in the type JAX holds it in."""
    source, target = np.dtype(values.dtype), held_type(values.dtype)
    if source.newbyteorder("=") == target or not np.size(values):
        return
    values = np.atleast_1d(values)
    if target.kind in "iu":
        _check_integers(values, target, name, columns)
    elif target.kind in "fc":
        _check_floats(values, target, name, columns)


def first_nonfinite(values: np.ndarray) -> tuple[int, ...] | None:
    """Returns the place of the first NaN or infinity, or None; always None for integers."""
    if not _is_inexact(values):
        return None
    for start, chunk in _chunks(values):
        bad = ~np.isfinite(chunk)
        if bad.any():
            return _first(bad, start)
    return None


def first_unheld(values: np.ndarray) -> tuple[tuple[int, ...], str] | None:
    """Returns (place, what is wrong) of the first value that JAX cannot hold, or None.

    Args:
      values: [rows, ...] numbers or truth values.

    Returns:
      For people, a text such as "nan: drop or fill it".
    """
    target = held_type(values.dtype)
    if not _is_inexact(values) and values.dtype.newbyteorder("=") == target:
        return None
    for start, chunk in _chunks(values):
        with np.errstate(over="ignore"):
            held = chunk.astype(target, copy=False)
        bad = ~np.isfinite(held) if _is_inexact(held) else held != chunk
        if bad.any():
            place = _first(bad, start)
            value = values[place]
            if not np.isfinite(value):
                return place, f"{value}: drop or fill it"
            return place, f"{value}, beyond {target}, in which JAX holds it: " + (
                "scale it" if _is_inexact(values) else "number from 0 what are names, or scale it"
            )
    return None


def nonfinite_rows(values: np.ndarray) -> np.ndarray:
    """Returns bool[rows], true where a value of the row is NaN or infinite."""
    found = np.zeros(len(values), bool)
    if _is_inexact(values):
        for start, chunk in _chunks(values):
            found[start : start + len(chunk)] = ~np.isfinite(chunk).reshape(len(chunk), -1).all(1)
    return found


def sample(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns (rows, their numbers): all of an array, or evenly spaced ones of a large file."""
    numbers = np.arange(len(values))
    if isinstance(values, np.memmap) and values.nbytes > _CHECKED_BYTES:
        numbers = numbers[:: -(-values.nbytes // _CHECKED_BYTES)]
        return values[numbers], numbers
    return values, numbers


def place_of(name: str, place: Sequence[int], columns: Sequence[str] | None = None) -> str:
    """Returns how people call a place in an array: "x, row 5, column 3"."""
    row, *rest = (int(number) for number in place)
    if not rest:
        return f"{name}, row {row}"
    if len(rest) > 1:
        return f"{name}, row {row}, at {rest}"
    named = f" ({columns[rest[0]]!r})" if columns is not None else ""
    return f"{name}, row {row}, column {rest[0]}{named}"


def _check_integers(values, target, name, columns) -> None:
    low, high = np.iinfo(target).min, np.iinfo(target).max
    for start, chunk in _chunks(values):
        if chunk.min() >= low and chunk.max() <= high:
            continue
        place = _first((chunk < low) | (chunk > high), start)
        raise ValueError(
            f"{place_of(name, place, columns)} is {values[place]}, beyond {target} ({low} to "
            f"{high}), in which JAX holds integers: give floats ({name}.astype(np.float32)), or "
            f"number from 0 what are names (np.unique({name}, return_inverse=True)), or turn 64 "
            "bits on (jax.config.update('jax_enable_x64', True))"
        )


def _check_floats(values, target, name, columns) -> None:
    finfo = np.finfo(target)
    largest = np.zeros(values.shape[1:], np.float64)
    with np.errstate(over="ignore"):
        first = np.asarray(values[0]).astype(target) if len(values) else None
    differs, remains = (np.zeros(values.shape[1:], bool) for _ in range(2))
    for start, chunk in _chunks(values):
        with np.errstate(over="ignore"):
            differs |= (chunk != values[0]).any(axis=0)
            remains |= (chunk.astype(target) != first).any(axis=0)
        size = np.abs(chunk).astype(np.float64, copy=False)
        size = np.where(np.isfinite(size), size, 0.0)
        np.maximum(largest, size.max(axis=0), out=largest)
        if size.max(initial=0.0) <= float(finfo.max):
            continue
        place = _first(size > float(finfo.max), start)
        raise ValueError(
            f"{place_of(name, place, columns)} is {values[place]:g}, beyond {target} (up to "
            f"{finfo.max:g}), in which JAX holds it: scale it, such as to a standard deviation "
            "of 1, or turn 64 bits on (jax.config.update('jax_enable_x64', True))"
        )
    merges = differs & ~remains
    if merges.any():
        column = _first(np.atleast_1d(merges), 0)
        where = f"{name}, column {list(column)}" if merges.ndim else name
        raise ValueError(
            f"{where}: its values differ, but are all {np.asarray(first)[merges].flat[0]:g} in "
            f"{target}, in which JAX holds them: subtract their mean first"
        )
    vanishes = (largest > 0) & (largest < float(finfo.tiny))
    if vanishes.any():
        column = _first(np.atleast_1d(vanishes), 0)
        where = f"{name}, column {list(column)}" if vanishes.ndim else name
        raise ValueError(
            f"{where}: no value is larger than {largest[vanishes].flat[0]:g}, which {target}, in "
            "which JAX holds it, cannot tell from 0: scale it, such as to a standard deviation of 1"
        )


def _is_inexact(values: np.ndarray) -> bool:
    # also types that are none of NumPy's own, such as bfloat16
    return jnp.issubdtype(values.dtype, np.inexact)


def _chunks(values: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yields (first row, rows) of parts of an array small enough for temporary copies."""
    rows = max(1, _CHUNK_VALUES * len(values) // max(np.size(values), 1))
    for start in range(0, len(values), rows):
        yield start, np.asarray(values[start : start + rows])


def _first(bad: np.ndarray, start: int) -> tuple[int, ...]:
    row, *rest = np.unravel_index(np.argmax(bad), bad.shape)
    return int(row) + start, *(int(number) for number in rest)
