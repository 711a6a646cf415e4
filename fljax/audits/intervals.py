"""Intervals of chances by counts of what happened: Clopper and Pearson, Biometrika 1934.

They are exact: whatever the chance is, an interval at 95 % misses it in 5 % of experiments at most,
of few trials as of many.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy

from fljax.core.values import Interval, shown, wrong

__all__ = ["check_confidence", "clopper_pearson", "clopper_pearson_above", "clopper_pearson_below"]

_INSIDE = Interval(0, 1, low_open=True, high_open=True)


def clopper_pearson(
    successes: Any, trials: Any, confidence: float = 0.95
) -> tuple[np.ndarray, np.ndarray]:
    """Returns between which chances a count of successes lets the true one be.

    Each bound alone holds with a confidence of (1 + confidence) / 2.

    Args:
      successes: Whole numbers, from 0 to trials.
      trials: How many independent trials each is of; of none, any chance is possible.
      confidence: How sure both bounds together are, between 0 and 1.

    Returns:
      (low, high), float64 of the shape to which both counts broadcast.

    Raises:
      ValueError: For counts that are none, or a confidence that is none.

    Example:
      >>> low, high = clopper_pearson([0, 5], 10)
      >>> low.round(3).tolist(), high.round(3).tolist()
      ([0.0, 0.187], [0.308, 0.813])
    """
    check_confidence(confidence)
    successes, trials = _counts(successes, trials)
    miss = (1 - confidence) / 2
    return _below(successes, trials, miss), 1 - _below(trials - successes, trials, miss)


def clopper_pearson_below(successes: Any, trials: Any, confidence: float = 0.95) -> np.ndarray:
    """Returns what the true chances are not below, float64; see `clopper_pearson`.

    Example:
      >>> float(clopper_pearson_below(10, 10).round(3))  # 0.05 ** (1 / 10)
      0.741
    """
    check_confidence(confidence)
    return _below(*_counts(successes, trials), 1 - confidence)


def clopper_pearson_above(successes: Any, trials: Any, confidence: float = 0.95) -> np.ndarray:
    """Returns what the true chances are not above, float64; see `clopper_pearson`.

    Example:
      >>> float(clopper_pearson_above(0, 10).round(3))  # 1 - 0.05 ** (1 / 10)
      0.259
    """
    check_confidence(confidence)
    successes, trials = _counts(successes, trials)
    return 1 - _below(trials - successes, trials, 1 - confidence)


def check_confidence(confidence: Any) -> None:
    """Raises ValueError for a confidence that is not between 0 and 1.

    Example:
      >>> check_confidence(95)
      Traceback (most recent call last):
      ValueError: confidence = 95 (int) must be a number between 0 and 1, such as 0.95.
    """
    if not np.isscalar(confidence) or isinstance(confidence, str) or confidence not in _INSIDE:
        raise wrong("confidence", confidence, "a number between 0 and 1, such as 0.95")


def _below(successes: np.ndarray, trials: np.ndarray, miss: float) -> np.ndarray:
    """Returns the chances with which as many successes, or more, have the chance `miss`."""
    some = np.maximum(successes, 1)  # the distribution of none has no first parameter
    return np.where(successes > 0, scipy.special.betaincinv(some, trials - some + 1, miss), 0.0)


def _counts(successes: Any, trials: Any) -> tuple[np.ndarray, np.ndarray]:
    """Returns counts as float64 of one shape."""
    found = np.asarray(successes, np.float64), np.asarray(trials, np.float64)
    for name, given, counts in zip(
        ("successes", "trials"), (successes, trials), found, strict=True
    ):
        if not (np.isfinite(counts) & (counts >= 0) & (counts == np.floor(counts))).all():
            raise wrong(name, given, "whole numbers of at least 0")
    if (found[0] > found[1]).any():
        raise ValueError(
            f"successes = {shown(successes)} must be at most as many as trials, {shown(trials)}."
        )
    return np.broadcast_arrays(*found)
