"""Checks of what a guarantee needs: numbers and runs that no theorem covers are refused."""

from __future__ import annotations

from fljax.core.values import Field, Interval, checked

__all__ = ["check_delta"]

_DELTA = Field(None, float, Interval(0, 1, low_open=True, high_open=True))


def check_delta(delta: float, population: int | None = None) -> float:
    """Returns delta; raises ValueError where it says nothing.

    Args:
      delta: Probability that the promise of epsilon fails.
      population: Users, or examples, that it is a promise to: with delta = 1/N a mechanism may
        publish one of them outright.

    Example:
      >>> check_delta(1e-5, population=1000)
      1e-05
    """
    delta = checked("delta", delta, _DELTA)
    if population is not None and delta >= 1 / population:
        raise ValueError(
            f"delta = {delta:g} must be below 1/N = {1 / population:g}: with a population of "
            f"{population:,}, publishing one of them at random would keep that promise. Choose "
            f"delta = {population**-1.1:.2g}, which is N^-1.1, or less."
        )
    return delta
