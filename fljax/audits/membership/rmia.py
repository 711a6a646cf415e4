"""RMIA: how many other rows a row's likelihood ratio exceeds.

Zarifzadeh et al. 2023 (arXiv:2312.03262), Algorithm 1. With theta the model that is attacked and
p(x) what models say of x on average over whether they hold it,

    score(x) = share of z with  (p(x|theta) / p(x)) / (p(z|theta) / p(z)) > gamma

where z are rows of the population. Online, p(x) is half of the mean over shadow models with x and
half of that without x. Offline there are the latter alone, and the former are guessed:

    p(x) = ((1 + a) mean of p(x|theta') + 1 - a) / 2

The p(z) are means over all shadow models, as in the algorithm; the official code puts them through
the guess of x as well. p is the softmax; the paper's figures on images are of another function of
the logits.
"""

from __future__ import annotations

import numpy as np

from fljax.audits.membership.observed import MembershipAttack, Observed
from fljax.audits.membership.shadows import lowest_where_unknown, side
from fljax.core.values import POSITIVE, Field, Interval, checked

_SHARE = Field(0.3, float, Interval(0, 1))
_GAMMA = Field(1.0, float, POSITIVE)
_SWITCH = Field(True, bool)


def rmia(online: bool = True, a: float = 0.3, gamma: float = 1.0) -> MembershipAttack:
    """Returns RMIA.

    Args:
      online: Whether there are shadow models with each target, and not only without it.
      a: What is guessed of the former where there are none: they say a p(x) + 1 - a.
      gamma: How many times a ratio must be that of z; 1 as in the official code. More leaves rows
        without clear signs alike, at 0.

    Returns:
      The attack. Scores are multiples of 1/Z, so that many are equal where the population is small.
      Of several looks the score is the mean.

    Raises:
      ValueError: For numbers out of range. Its score raises it for targets without shadow models,
        and without a population.

    Example:
      >>> observed = Observed.of(
      ...     [0.9], shadows=[[0.8], [0.2]], members=[[True], [False]],
      ...     population=[0.5, 0.9], population_shadows=[[0.5, 0.1], [0.5, 0.1]],
      ... )
      >>> rmia().score(observed).tolist()
      [0.5]
    """
    online = checked("online", online, _SWITCH)
    a, gamma = checked("a", a, _SHARE), checked("gamma", gamma, _GAMMA)

    def score(observed: Observed) -> np.ndarray:
        without = side(observed, "out", "rmia").means()
        if online:
            typical = (without + side(observed, "in", "rmia").means()) / 2
        else:
            typical = ((1 + a) * without + 1 - a) / 2
        others = _population_ratios(observed)
        own = _log_ratios(observed.target, typical) - np.log(gamma)
        looks = [_share_below(own[:, look], others[:, look]) for look in range(own.shape[1])]
        return lowest_where_unknown(np.mean(looks, 0))

    needs = ("in", "out", "population") if online else ("out", "population")
    return MembershipAttack("probability", score, needs)


def _population_ratios(observed: Observed) -> np.ndarray:
    """Returns float64[Z, Q], log(p(z|theta) / p(z)) of the rows of which all that is known."""
    counted = np.isfinite(observed.population_shadows)
    total = np.where(counted, observed.population_shadows, 0.0).sum(0)
    with np.errstate(invalid="ignore"):
        ratios = _log_ratios(observed.population, total / counted.sum(0))
    known = ratios[~np.isnan(ratios).any(-1)]
    if not len(known):
        raise ValueError(
            f"rmia needs rows of a population, which no model was trained on, and of {len(ratios)} "
            "none has a probability under the models. Give Observed.of(population=..., "
            "population_shadows=...), or use lira."
        )
    return known


def _log_ratios(values: np.ndarray, typical: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.log(values) - np.log(typical)


def _share_below(values: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Returns the share of the others that lie below each value; NaN where that is NaN."""
    share = np.searchsorted(np.sort(others), values) / len(others)
    return np.where(np.isnan(values), np.nan, share)
