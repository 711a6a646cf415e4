"""Checks arguments of attacks and aggregators that are Python's numbers; traced ones pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from fljax.core.values import COUNT, FINITE, Field, Interval, checked

__all__ = ["check_count", "check_number", "is_traced", "too_few"]


def is_traced(value: Any) -> bool:
    """Returns whether a number is an argument of the round program.

    Example:
      >>> is_traced(0.1), is_traced(jnp.float32(0.1))
      (False, True)
    """
    return isinstance(value, jax.Array)


def check_number(name: str, value: Any, allowed: Interval = FINITE) -> None:
    """Raises ValueError for what is no number, or outside of what is allowed, unless it is traced.

    Args:
      name: How the user calls it.
      value: What the user gave.
      allowed: Its range.

    Example:
      >>> check_number("share", 0.7, Interval(0, 0.5, high_open=True))
      Traceback (most recent call last):
      ValueError: share = 0.7 must be at least 0 and below 0.5.
    """
    if not is_traced(value):
        checked(name, value, Field(None, float, allowed))


def check_count(name: str, value: Any, allowed: Interval = COUNT) -> None:
    """Raises ValueError for what is no whole number of a range, unless it is traced.

    Example:
      >>> check_count("iterations", 0)
      Traceback (most recent call last):
      ValueError: iterations = 0 must be at least 1.
    """
    if not is_traced(value):
        checked(name, value, Field(None, int, allowed))


def too_few(rule: str, formula: str, least: Any) -> Callable[[int], str | None] | None:
    """Returns what tells of numbers of updates for which a rule promises nothing.

    Args:
      rule: Its name.
      formula: How many it needs, in the letters of its paper.
      least: How many these are; of one that is traced nothing is told.

    Example:
      >>> problem = too_few("krum", "2 f + 3", 13)
      >>> problem(13), problem(10)
      (None, 'krum needs at least 2 f + 3 = 13 updates, and there may be 10')
    """
    if is_traced(least):
        return None

    def problem(n: int) -> str | None:
        number = formula if formula == f"{least:g}" else f"{formula} = {least:g}"
        needs = f"{rule} needs at least {number} updates"
        return None if n >= least else f"{needs}, and there may be {n}"

    return problem
