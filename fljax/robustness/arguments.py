"""Checks arguments of attacks and aggregators that are Python's numbers; traced ones pass."""

from __future__ import annotations

from typing import Any

import jax

from fljax.core.values import COUNT, FINITE, Field, Interval, checked

__all__ = ["check_count", "check_number", "is_traced"]


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
