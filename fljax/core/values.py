"""Fields: the kind and range of values that users give, and one way to say what is wrong.

A configuration and the Python functions ask the same: `checked(name, value, field)` returns the
value as its kind, or raises a ValueError that names the option, shows the value, and says what it
must be.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import os
import reprlib
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np


@dataclasses.dataclass(frozen=True)
class Interval:
    """Real numbers between two bounds; a bound itself belongs to it unless it is open."""

    low: float = -math.inf
    high: float = math.inf
    low_open: bool = False
    high_open: bool = False

    def __contains__(self, value: Any) -> bool:
        above = value > self.low if self.low_open else value >= self.low
        below = value < self.high if self.high_open else value <= self.high
        return above and below and abs(value) < math.inf

    def __str__(self) -> str:
        bounds = []
        if self.low > -math.inf:
            bounds.append(f"{'above' if self.low_open else 'at least'} {self.low:g}")
        if self.high < math.inf:
            bounds.append(f"{'below' if self.high_open else 'at most'} {self.high:.10g}")
        return " and ".join(bounds) or "finite"


FINITE = Interval()
POSITIVE = Interval(0, low_open=True)
NON_NEGATIVE = Interval(0)
COUNT = Interval(1)
DECAY = Interval(0, 1, high_open=True)
FACTOR = Interval(0, 1, low_open=True)
SEED = Interval(0, 2**32, high_open=True)

# Rounds, steps, rows and clients are counted in 32 bits inside the compiled programs.
_LARGEST_COUNT = 2**31 - 1

_NOUN = {
    bool: "True or False",
    int: "a whole number",
    float: "a number",
    str: "a text",
    tuple: "a tuple of texts",
    dict: "a dict",
}


# What an option affects: what a round computes, which rounds and evaluations there are, how fast
# they come, and what is read and written where.
RESULTS, RECORD, SPEED, FILES = ("results", "record", "speed", "files")


class Field(NamedTuple):
    """The kind, range and meaning of one option.

    Attributes:
      default: Its value where nobody sets it; None stands for "not set".
      kind: bool, int, float, str, tuple (of texts), or dict for options whose names another module
        knows.
      allowed: Interval of numbers, tuple of names, or None for anything of that kind.
      optional: Whether None is a value.
      meaning: A sentence on what it does.
      unit: Of a number, where it has one.
      affects: "results" (what a round computes), "record" (which rounds and evaluations there are),
        "speed", or "files".
    """

    default: Any
    kind: type
    allowed: Interval | tuple[str, ...] | None = None
    optional: bool = False
    meaning: str = ""
    unit: str = ""
    affects: str = RESULTS


def checked(name: str, value: Any, field: Field) -> Any:
    """Returns a value as the kind that a field says, where nothing is lost by it.

    Args:
      name: How the user calls it.
      value: What the user gave; scalars of NumPy and JAX count as numbers.
      field: What it may be.

    Raises:
      ValueError: For a value of another kind, or outside of what is allowed.
    """
    if value is None and field.optional:
        return None
    example = f", such as {field.default!r}" if field.kind is str and field.default else ""
    value = _converted(name, value, field.kind, _NOUN[field.kind] + example)
    if field.kind in (int, float):
        _check_number(name, value, field)
    elif isinstance(field.allowed, tuple):
        _check_choices(name, value if field.kind is tuple else (value,), field.allowed)
    return value


def checked_path(name: str, value: Any) -> Path:
    """Returns a path; raises ValueError for what is none."""
    if not isinstance(value, str | os.PathLike) or "\0" in os.fspath(value):
        raise wrong(name, value, "a path")
    if not os.fspath(value).strip():
        raise ValueError(f"{name} is empty. Give a path, such as runs/first.")
    return Path(value)


def sequence(name: str, values: Any, what: str) -> Sequence[Any]:
    """Returns a list, tuple or array; raises ValueError for anything else, texts included."""
    is_array = hasattr(values, "__array__") and getattr(values, "ndim", 0) > 0
    if isinstance(values, str | bytes) or not (isinstance(values, Sequence) or is_array):
        raise wrong(name, values, what)
    return values


def whole_numbers(name: str, values: Any) -> np.ndarray:
    """Returns int64[n] of a list or an array of whole numbers.

    Raises:
      ValueError: For anything else, such as fractions, truth values, or lists of lists.
    """
    import numpy as np  # configurations do without

    try:
        array = np.asarray(values)
    except ValueError:
        array = np.asarray(None)  # ragged
    if array.ndim == 1 and not array.size:
        return np.zeros(0, np.int64)
    if array.ndim != 1 or array.dtype.kind not in "iu" or _has_bool(values):
        raise wrong(name, values, "a list of whole numbers, one after another")
    return array.astype(np.int64)


def _has_bool(values: Any) -> bool:
    """Returns whether a list holds truth values, which an array of it would hide."""
    return isinstance(values, list | tuple) and any(isinstance(value, bool) for value in values)


def shown(value: Any) -> str:
    """Returns a value as a short text, whatever it is."""
    if isinstance(value, int) and abs(value).bit_length() > 256:
        return f"a number of {abs(value).bit_length()} bits"  # Python would refuse to write it
    plain = type(value) in (str, list, tuple, dict, set, frozenset)
    try:
        text = " ".join((_SHORT.repr if plain else repr)(value).split())
    except Exception:  # a user's own __repr__
        text = f"<{type(value).__name__}>"
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


_LONGEST = 100
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = _LONGEST


def wrong(name: str, value: Any, must: str) -> ValueError:
    """Returns the error of a value that is not what it must be."""
    return ValueError(f"{name} = {shown(value)} ({type(value).__name__}) must be {must}.")


def brief(error: Exception) -> str:
    """Returns the kind of an error and the first line of what it says."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def in_float32(value: float) -> float:
    """Returns a number as 32 bits hold it; infinity where it is too large."""
    try:
        return struct.unpack("f", struct.pack("f", value))[0]
    except OverflowError:
        return math.copysign(math.inf, value)


def _check_number(name: str, value: int | float, field: Field) -> None:
    allowed = field.allowed or FINITE
    if value not in allowed:
        finite = "" if abs(value) < math.inf or allowed == FINITE else " and finite"
        raise ValueError(f"{name} = {shown(value)} must be {allowed}{finite}.")
    if field.kind is int and allowed.high == math.inf and abs(value) > _LARGEST_COUNT:
        raise ValueError(f"{name} = {shown(value)} must be at most {_LARGEST_COUNT}.")
    if field.kind is float:
        rounded = in_float32(value)
        if rounded not in allowed or (rounded == 0) != (value == 0):
            raise ValueError(
                f"{name} = {value!r} must be {allowed}, and so it must be in the 32 bits that runs "
                f"compute with, where it is {rounded:g}."
            )


def _check_choices(name: str, values: tuple, allowed: tuple[str, ...]) -> None:
    for place, value in enumerate(values):
        if not isinstance(value, str) or value not in allowed:
            close = difflib.get_close_matches(str(value), allowed, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            choices = ", ".join(map(repr, allowed))
            raise ValueError(f"{name} = {shown(value)} is not one of {choices}.{hint}")
        if value in values[:place]:
            raise ValueError(f"{name} names {value!r} twice; name it once.")


def _converted(name: str, value: Any, kind: type, noun: str) -> Any:
    """Returns the value as `kind` where nothing is lost by it."""
    given = value
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        try:
            value = value.item()  # a scalar of NumPy or JAX
        except TypeError:
            raise wrong(name, given, f"{noun}, not one that a program traces") from None
    if type(value) is kind and kind is not dict:
        return value
    if kind is float and type(value) is int:
        # beyond the floats, which have no infinity among what is allowed
        return float(value) if abs(value) < 1e300 else math.inf * (1 if value > 0 else -1)
    if kind is int and type(value) is float and value.is_integer():
        return int(value)
    if kind is tuple and isinstance(value, list | str):
        return (value,) if isinstance(value, str) else tuple(value)
    if kind is dict and isinstance(value, Mapping):
        value = dict(value)
        if any(not isinstance(key, str) for key in value):
            raise wrong(name, given, "a dict whose keys are texts")
        return value
    if kind is str and isinstance(value, os.PathLike):
        return os.fspath(value)
    raise wrong(name, given, noun)
