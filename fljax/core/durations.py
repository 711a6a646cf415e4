"""Writes seconds in the unit that suits them: milliseconds to days."""

from __future__ import annotations

import math

from fljax.core.digits import decimals

_UNITS = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"), (1.0, "s"))
# A longest time of one and a half hours is still easier to read in minutes.
_AT_LEAST = 2.0


def time_unit(most: float) -> tuple[float, str]:
    """Returns the unit of times, in seconds and as a text.

    Args:
      most: Seconds of the longest one.

    Example:
      >>> time_unit(90.0), time_unit(86400.0), time_unit(0.01)
      ((1.0, 's'), (3600.0, 'h'), (0.001, 'ms'))
    """
    found = (unit for unit in _UNITS if most >= _AT_LEAST * unit[0])
    return next(found, (1e-3, "ms") if 0 < most < 0.1 else (1.0, "s"))


def duration(seconds: float) -> str:
    """Returns a time as a text of three digits.

    Example:
      >>> duration(0.25), duration(100.0), duration(200_000.0)
      ('0.250 s', '100 s', '2.31 d')
    """
    if not math.isfinite(seconds):
        return f"{seconds:g} s"
    scale, unit = time_unit(abs(seconds))
    return f"{seconds / scale:,.{decimals(seconds / scale, 3)}f} {unit}"
