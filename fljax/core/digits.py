"""Writes numbers with as many digits as say something, and as tell different ones apart."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

# Beyond these, powers of ten are easier to read than zeros.
_SMALL, _LARGE = 1e-4, 1e7


def decimals(value: float, digits: int) -> int:
    """Returns how many decimals leave so many significant digits.

    Example:
      >>> decimals(12.5, 3), decimals(0.0125, 3), decimals(12500.0, 3)
      (1, 4, 0)
    """
    if not (value and math.isfinite(value)):
        return digits - 1
    # of the rounded number: 9.996 has four digits before it is 10.0
    exponent = int(f"{value:.{digits - 1}e}".partition("e")[2])
    return max(digits - 1 - exponent, 0)


def figures(value: float, digits: int = 4) -> str:
    """Returns a number with so many significant digits at least, however small it is.

    Example:
      >>> figures(0.5), figures(2.30259), figures(1.234e-6), figures(123456.7)
      ('0.5000', '2.303', '1.234e-06', '123457')
    """
    if value and math.isfinite(value) and not _SMALL <= abs(value) < _LARGE:
        return f"{value:.{digits - 1}e}"
    return f"{value:.{decimals(value, digits)}f}"


def counted(number: int, noun: str) -> str:
    """Returns how many there are of a thing.

    Example:
      >>> counted(1, "round"), counted(1500, "row")
      ('1 round', '1,500 rows')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def amount(count: float, unit: str) -> str:
    """Returns an amount with the prefix that leaves one to three digits before the point.

    Example:
      >>> amount(2600, "B"), amount(3.5e12, "FLOP"), amount(0.0125, "J")
      ('2.60 kB', '3.50 TFLOP', '12.50 mJ')
    """
    for scale, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, "")):
        if count >= scale:
            return f"{count / scale:,.2f} {prefix}{unit}"
    if count >= 1e-3:
        return f"{count * 1e3:,.2f} m{unit}"
    return f"{count * 1e6:,.2f} µ{unit}" if count else f"0 {unit}"


def apart(
    values: Iterable[Any],
    digits: int = 3,
    most: int = 6,
    write: Callable[[Any, int], str] = figures,
) -> Callable[[Any], str]:
    """Returns what writes values that stand side by side, so that different ones look different.

    Args:
      values: All that are shown.
      digits: Significant ones, at least.
      most: Significant ones, at most; what agrees in so many counts as equal.
      write: (value, digits) -> its text.

    Example:
      >>> [*map(apart([0.9121, 0.9124]), [0.9121, 0.9124])], apart([0.91, 0.92])(0.91)
      (['0.9121', '0.9124'], '0.910')
    """
    values = list(values)

    def different(digits: int) -> int:
        return len({write(value, digits) for value in values})

    enough = (n for n in range(digits, most) if different(n) == different(most))
    digits = next(enough, most)
    return lambda value: write(value, digits)
