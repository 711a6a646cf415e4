"""A bound: what one audit proves of epsilon from below, and on which conditions."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from fljax.core.values import Field, Interval, checked

__all__ = ["Bound", "check_delta"]

_DELTA = Field(None, float, Interval(0, 1, high_open=True))


class Bound(NamedTuple):
    """The finding of an audit: no mechanism with a smaller epsilon does this, at a confidence.

    Attributes:
      name: Of the audit.
      epsilon: Lower bound; 0 where nothing is proven.
      confidence: How often such a bound is right, at least, of those that chance would give.
      delta: Of (epsilon, delta).
      estimate: What epsilon seems to be, without any confidence; None of an audit that makes no
        such guess, infinity where nothing is hidden.
      assumes: What the bound rests on beside chance, a sentence each.
      numbers: {name: number} that it follows from.

    Example:
      >>> bound = Bound("coin", 0.4, 0.95, 1e-5, math.inf, ("Trials are independent.",), {"in": 9})
      >>> bound.exceeds(0.3), bound.plain()["estimate"]
      (True, None)
    """

    name: str
    epsilon: float
    confidence: float
    delta: float
    estimate: float | None
    assumes: tuple[str, ...]
    numbers: dict[str, float]

    def exceeds(self, claimed: float) -> bool:
        """Returns whether a claimed epsilon is refuted."""
        return self.epsilon > claimed

    def plain(self) -> dict[str, Any]:
        """Returns the record as values of JSON, which has no infinity: it is None there."""
        found = self._asdict()
        return found | {
            "estimate": _finite(self.estimate),
            "assumes": list(self.assumes),
            "numbers": {name: _finite(number) for name, number in self.numbers.items()},
        }


def _finite(number: float | None) -> float | None:
    return None if number is None or not math.isfinite(number) else number


def check_delta(delta: Any) -> None:
    """Raises ValueError for a delta that is not from 0 on and below 1.

    Example:
      >>> check_delta(1e-5)
    """
    checked("delta", delta, _DELTA)
