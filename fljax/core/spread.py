"""Unevenness of a number over clients: quantiles, extremes, indices of fairness."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

__all__ = ["EVENNESS", "SPREAD", "spread"]

SPREAD = (
    *("mean", "std", "p10", "p50", "p90", "worst", "best"),
    *("variance", "jain", "gini", "entropy"),
)
# Those that say how alike clients are, whatever their mean, and whether higher values mean more so.
EVENNESS = {"std": False, "variance": False, "jain": True, "gini": False, "entropy": True}


def spread(values: np.ndarray, higher_is_better: bool = True) -> dict[str, float]:
    """Describes how values are spread over clients, each client counting once.

    Args:
      values: [clients] numbers.
      higher_is_better: Which end is the worst.

    Returns:
      {name of `SPREAD`: number}: mean, the population's standard deviation and variance,
      percentiles by linear interpolation, the means over the worst and the best tenth of the
      clients (rounded up, so at least one), and three indices of x, none of them negative: Jain's,
      (sum x)^2 / (n sum x^2), which is 1 if all are equal and 1/n if one has everything (Jain, Chiu
      and Hawe 1984); Gini's, the mean difference of two clients over twice the mean, 0 if all are
      equal; and the entropy of the shares x / sum x (Li et al. 2020, arXiv:1905.10497), divided by
      log n, 1 if all are equal. NaN for what is not defined; all of them without clients.

    Example:
      >>> found = spread(np.array([0.2, 0.4, 0.6]))
      >>> round(found["jain"], 3), round(found["gini"], 3), found["worst"], found["best"]
      (0.857, 0.222, 0.2, 0.6)
    """
    ordered = np.sort(np.asarray(values, np.float64))
    if not ordered.size or np.isnan(ordered[-1]):
        return dict.fromkeys(SPREAD, math.nan)
    tenth = -(-ordered.size // 10)
    ends = ordered[:tenth].mean(), ordered[-tenth:].mean()
    worst, best = ends if higher_is_better else ends[::-1]
    # infinite ones have no deviation, and nothing lies between them and others
    method = "linear" if np.isfinite(ordered).all() else "nearest"
    with np.errstate(all="ignore"):
        middle = np.percentile(ordered, (10, 50, 90), method=method)
        found = (ordered.mean(), ordered.std(), *middle, worst, best, ordered.var())
        indices = [_index(rule, ordered) for rule in (_jain, _gini, _entropy)]
    return dict(zip(SPREAD, map(float, (*found, *indices)), strict=True))


def lorenz(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the Lorenz curve: what share of the sum each share of the clients has, least first.

    Args:
      values: [clients] numbers, none negative.

    Returns:
      (float64[clients + 1], float64[clients + 1]), from (0, 0) to (1, 1).

    Example:
      >>> lorenz(np.array([3.0, 1.0]))[1].tolist()
      [0.0, 0.25, 1.0]
    """
    ordered = np.sort(np.asarray(values, np.float64))
    sums = np.concatenate([[0.0], ordered.cumsum()])
    shares = np.linspace(0, 1, ordered.size + 1)
    return shares, sums / sums[-1] if sums[-1] > 0 else shares


def _index(rule: Callable[[np.ndarray], float], ordered: np.ndarray) -> float:
    """Returns an index of shares; NaN where there are none."""
    return rule(ordered) if ordered[0] >= 0 and 0 < ordered.sum() < math.inf else math.nan


def _jain(x: np.ndarray) -> float:
    return x.sum() ** 2 / (x.size * np.square(x).sum())


def _gini(ordered: np.ndarray) -> float:
    n = ordered.size
    return 2 * np.dot(np.arange(1, n + 1), ordered) / (n * ordered.sum()) - (n + 1) / n


def _entropy(x: np.ndarray) -> float:
    if x.size == 1:
        return 1.0
    shares = x / x.sum()
    return -np.sum(shares * np.log(np.where(shares > 0, shares, 1))) / math.log(x.size)
