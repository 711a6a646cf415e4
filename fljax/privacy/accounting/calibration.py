"""Calibration: the smallest noise, or the most rounds, that a budget of epsilon allows."""

from __future__ import annotations

import math
from collections.abc import Callable

from fljax.core.values import POSITIVE, Field, checked
from fljax.privacy.accounting.composition import epsilon, spending
from fljax.privacy.accounting.events import Run

__all__ = ["calibrate", "last_kept", "rounds_within", "smallest_noise"]

_TARGET = Field(None, float, POSITIVE)
_MOST_NOISE, _LEAST_EPSILON = 1e9, 1e-9


def calibrate(
    target_epsilon: float,
    delta: float,
    make_events: Callable[[float], Run],
    accountant: str = "pld",
    tolerance: float = 1e-3,
) -> float:
    """Returns the smallest noise whose run stays within a budget.

    Args:
      target_epsilon: The budget.
      delta: As `epsilon` takes it.
      make_events: noise -> the events of the whole run; more noise must cost less.
      accountant: "pld" or "rdp".
      tolerance: Share of the noise that the answer may be above the smallest one.

    Returns:
      A noise that keeps the budget, at most `tolerance` of itself above the smallest.

    Raises:
      ValueError: If no noise keeps the budget.

    Example:
      >>> from fljax.privacy import accounting
      >>> noise = accounting.calibrate(
      ...     8.0, 1e-5, lambda noise: [(accounting.poisson_gaussian(noise, 0.1), 100)], "rdp"
      ... )
      >>> f"{noise:.2f}"
      '0.99'
    """
    return smallest_noise(
        target_epsilon, lambda noise: epsilon(make_events(noise), delta, accountant), tolerance
    )


def smallest_noise(
    target_epsilon: float,
    spent: Callable[[float], float],
    tolerance: float = 1e-3,
    start: float = 1.0,
) -> float:
    """Returns the smallest noise whose run stays within a budget; see `calibrate`.

    Args:
      target_epsilon: The budget.
      spent: noise -> epsilon of the whole run; more noise must cost less.
      tolerance: Share of the noise that the answer may be above the smallest one.
      start: Where the search begins.

    Raises:
      ValueError: If no noise keeps the budget.

    Example:
      >>> f"{smallest_noise(2.0, lambda noise: 10 / noise):.2f}"
      '5.00'
    """
    target = checked("target_epsilon", target_epsilon, _TARGET)

    def excess(noise: float) -> float:
        """Returns how far the logarithm of epsilon is above the target's."""
        return math.log(max(spent(noise), _LEAST_EPSILON) / target)

    high, above = start, excess(start)
    while above > 0:
        high, above = 2 * high, excess(2 * high)
        if high > _MOST_NOISE:
            raise ValueError(
                f"target_epsilon = {target:g} is not kept by any noise. Raise it, or delta."
            )
    low, below = high / 2, excess(high / 2)
    while below <= 0 and low > 1 / _MOST_NOISE:
        high, above, low, below = low, below, low / 2, excess(low / 2)
    # between the two, the logarithm of epsilon is almost linear in that of the noise; guesses lie
    # by turns a little above the line's zero and below it
    side = 1
    while below > 0 and high - low > tolerance * high:
        share = below / (below - above) if math.isfinite(below) else 0.5
        guess = low * (high / low) ** share * (1 + side * tolerance / 3)
        inside = (high - low) / 16
        guess = min(max(guess, low + inside), high - inside)
        found = excess(guess)
        if found <= 0:
            high, above = guess, found
        else:
            low, below = guess, found
        side = -side
    return high


def rounds_within(
    target_epsilon: float, delta: float, events: Run, accountant: str = "pld", most: int = 2**20
) -> int:
    """Returns the largest number of rounds that stay within a budget.

    Args:
      target_epsilon: The budget.
      delta: As `epsilon` takes it.
      events: Those of one round.
      accountant: "pld" or "rdp".
      most: No more rounds are asked for.

    Returns:
      Rounds; 0 where a single one costs more.

    Example:
      >>> from fljax.privacy import accounting
      >>> accounting.rounds_within(8.0, 1e-5, accounting.poisson_gaussian(1.0, 0.1), "rdp")
      102
    """
    target = checked("target_epsilon", target_epsilon, _TARGET)
    spent = spending(events, delta)

    def keeps(rounds: int) -> bool:
        costs = spent(rounds, (accountant,))
        if accountant not in costs:
            raise ValueError(f"accountant = {accountant!r} has no theorem for these events.")
        return costs[accountant] <= target

    low, high = 0, 1
    while high <= most and keeps(high):
        low, high = high, 2 * high
    return last_kept(keeps, low, min(high, most + 1))


def last_kept(keeps: Callable[[int], bool], low: int, high: int) -> int:
    """Returns the last number that keeps a budget, from `low`, which does, to before `high`.

    Example:
      >>> last_kept(lambda rounds: rounds <= 8, 0, 100)
      8
    """
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if keeps(middle) else (low, middle)
    return low
