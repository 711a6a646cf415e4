"""Places the marks of an axis at round numbers, and writes them."""

from __future__ import annotations

import math

# An axis that spans less than this many powers of ten has marks between them.
_FEW_POWERS = 2.5
_SMALL, _LARGE = 1e-4, 1e6


def linear_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Returns multiples of 1, 2 or 5 times a power of ten between two numbers.

    Args:
      low, high: Ends of the axis, `low < high`.
      most: How many marks there may be.

    Example:
      >>> linear_ticks(0.0, 100.0), linear_ticks(0.12, 0.31, 3)
      ([0.0, 20.0, 40.0, 60.0, 80.0, 100.0], [0.2, 0.3])
    """
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10, 20) if power * factor >= rough)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    # of the rounded step, so that 3 x 0.1 is 0.3
    digits = max(0, 1 - math.floor(math.log10(step)))
    return [round(number * step, digits) + 0.0 for number in range(first, last + 1)]


def log_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Returns powers of ten between two positive numbers, or 1, 2 and 5 times them.

    Example:
      >>> log_ticks(0.01, 1000.0), log_ticks(0.9, 12.0)
      ([0.01, 0.1, 1.0, 10.0, 100.0, 1000.0], [1.0, 2.0, 5.0, 10.0])
    """
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    factors = (1, 2, 5) if math.log10(high / low) < _FEW_POWERS else (1,)
    every = max(1, -(-(last - first) // most)) if len(factors) == 1 else 1
    marks = [
        float(f"{factor}e{power}")
        for power in range(first, last + 1)
        if power % every == 0
        for factor in factors
    ]
    found = [mark for mark in marks if low * (1 - 1e-9) <= mark <= high * (1 + 1e-9)]
    return found or [low, high]


def written(value: float, step: float) -> str:
    """Returns a mark as a text with the decimals that its neighbours need.

    Args:
      value: Of the mark.
      step: To the next one.

    Example:
      >>> written(0.5, 0.25), written(2000.0, 500.0), written(3e-7, 1e-7), written(0.0, 1e-7)
      ('0.50', '2,000', '3e-07', '0')
    """
    if value == 0:
        return "0"
    if step < _SMALL or abs(value) >= _LARGE:
        return f"{value:.3g}"
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    exact = round(step * 10**decimals, 6).is_integer()
    return f"{value:,.{decimals + (not exact)}f}"
