"""Checks the settings of compressors.

A setting that is traced, as a hyperparameter of the round program, was checked as a number before.
"""

from __future__ import annotations

import math
import numbers

import jax

from fljax.core.values import shown as text_of


def check_fraction(name: str, value: float | jax.Array) -> None:
    """Raises ValueError unless 0 < value <= 1."""
    if not is_traced(value) and not (_is_number(value) and 0 < value <= 1):
        raise ValueError(f"{name} must lie above 0 and be at most 1, not {text_of(value)}")


def check_range(name: str, value: int | jax.Array, least: int, most: int) -> None:
    """Raises ValueError unless the value is an integer from `least` to `most`."""
    if is_traced(value):
        return
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise ValueError(f"{name} must be an integer from {least} to {most}, not {text_of(value)}")


def check_positive(name: str, value: float) -> None:
    """Raises ValueError unless the value is a finite number above 0."""
    if not _is_number(value) or not 0 < value < math.inf:
        raise ValueError(f"{name} must be a number above 0, not {text_of(value)}")


def check_seed(value: int) -> None:
    """Raises ValueError unless the value is an integer that random keys are made of."""
    check_range("seed", value, 0, 2**32 - 1)


def check_switch(name: str, value: bool) -> None:
    """Raises ValueError unless the value is True or False."""
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be True or False, not {text_of(value)}")


def is_traced(value) -> bool:
    """Returns whether a setting is an argument of the round program."""
    return isinstance(value, jax.Array)


def shown(value) -> str:
    """Returns a setting as text, for names."""
    return "level" if is_traced(value) else f"{value:g}"


def check_choice(name: str, value: str, known: tuple[str, ...]) -> None:
    """Raises ValueError unless the value is one of the known ones."""
    if not isinstance(value, str) or value not in known:
        raise ValueError(f"{name} must be one of {', '.join(known)}, not {text_of(value)}")


def _is_number(value) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)
