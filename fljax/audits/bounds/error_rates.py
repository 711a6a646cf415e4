"""Lower bounds of epsilon by the errors of an attack: how often it errs without a canary, and with.

A mechanism is run many times, with the canary and without. Whatever an attacker makes of what it
releases, (epsilon, delta)-differential privacy says of his false positive and negative rates
(Kairouz et al. 2015, arXiv:1311.0776)

    1 - delta - FPR <= e^epsilon FNR        1 - delta - FNR <= e^epsilon FPR

so that rates that are small refute a small epsilon (Jagielski et al. 2020, arXiv:2006.07709; Nasr
et al. 2021, arXiv:2101.04535). Rates are counted, so each is taken at its bound by Clopper and
Pearson, and both bounds hold together. Where the threshold is not said, every second trial chooses
it and the others are counted. The papers' own figures take the best of all thresholds on the trials
that are counted, which holds less often than it says.

Of a mechanism whose trade-off is that of a Gaussian one, rates prove more (Nasr et al. 2023,
arXiv:2302.07956): mu >= quantile(1 - FPR) - quantile(FNR), and mu has an epsilon at each delta.
That it is one is an assumption, true of the Gaussian mechanism, and of many rounds of it by and
large.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy

from fljax.audits.bounds.bound import Bound, check_delta
from fljax.audits.bounds.gaussians import epsilon_of_gaussian_privacy
from fljax.audits.intervals import check_confidence, clopper_pearson_above

__all__ = ["audit_scores", "best_threshold", "epsilon_of_errors", "mu_of_errors"]

_INDEPENDENT = "Trials are independent runs of one mechanism, half of them with the canary."
_GAUSSIAN = "The mechanism's trade-off between errors is that of a Gaussian mechanism."


def epsilon_of_errors(
    false_positives: Any,
    outside: Any,
    false_negatives: Any,
    inside: Any,
    delta: float = 0.0,
    confidence: float = 0.95,
) -> np.ndarray:
    """Returns below what epsilon is not, by counts of errors.

    Args:
      false_positives: How many trials without the canary are taken for such with it.
      outside: How many trials are without the canary.
      false_negatives, inside: The same of trials with it.
      delta: Of (epsilon, delta).
      confidence: How sure both rates' bounds together are.

    Returns:
      float64 of the shape to which the counts broadcast, at least 0.

    Raises:
      ValueError: For counts, a delta or a confidence that are none.

    Example:
      >>> float(epsilon_of_errors(2, 1000, 500, 1000).round(2))  # log(0.5 / 0.002) is 5.5
      4.17
    """
    check_delta(delta)
    positives, negatives = _rates(false_positives, outside, false_negatives, inside, confidence)
    powers = [1 - delta - negatives, 1 - delta - positives]
    with np.errstate(divide="ignore", invalid="ignore"):
        found = [
            np.where(power > 0, np.log(power / rate), 0.0)
            for power, rate in zip(powers, (positives, negatives), strict=True)
        ]
    return np.maximum(np.maximum(*found), 0.0)


def mu_of_errors(
    false_positives: Any,
    outside: Any,
    false_negatives: Any,
    inside: Any,
    confidence: float = 0.95,
) -> np.ndarray:
    """Returns below what mu is not, of mu-Gaussian privacy, by counts; see `epsilon_of_errors`.

    Example:
      >>> float(mu_of_errors(20, 1000, 500, 1000).round(2))  # 2.05 of the rates themselves
      1.79
    """
    positives, negatives = _rates(false_positives, outside, false_negatives, inside, confidence)
    with np.errstate(invalid="ignore"):
        found = -scipy.special.ndtri(positives) - scipy.special.ndtri(negatives)
    return np.fmax(found, 0.0)


def best_threshold(
    inside: Any,
    outside: Any,
    delta: float = 0.0,
    confidence: float = 0.95,
    gaussian: bool = False,
) -> float:
    """Returns from which score on a trial is best taken for one with the canary.

    What these trials chose is to be counted on others.

    Args:
      inside, outside: Scores of trials with the canary, and without.
      delta, confidence, gaussian: Of the bound that is to be largest, as `audit_scores` takes them.

    Returns:
      One of the scores, the least of those that do equally well; infinity where there are none.

    Example:
      >>> best_threshold([1.0, 6.0, 7.0, 8.0] * 50, [0.0, 1.0, 2.0, 3.0] * 50)
      6.0
    """
    inside, outside = _scores("inside", inside), _scores("outside", outside)
    thresholds = np.unique(np.concatenate([inside, outside]))
    if not len(thresholds):
        return np.inf
    counts = _errors(np.sort(inside), np.sort(outside), thresholds)
    if gaussian:
        bounds = mu_of_errors(*counts, confidence=confidence)
    else:
        bounds = epsilon_of_errors(*counts, delta=delta, confidence=confidence)
    return float(thresholds[np.argmax(bounds)])


def audit_scores(
    inside: Any,
    outside: Any,
    *,
    delta: float = 0.0,
    confidence: float = 0.95,
    threshold: float | None = None,
    gaussian: bool = False,
    name: str = "error rates",
    assumes: tuple[str, ...] = (_INDEPENDENT,),
) -> Bound:
    """Returns the lower bound of epsilon that an attack's scores prove.

    Args:
      inside: Scores of trials with the canary, higher where the attacker believes in it.
      outside: Scores of trials without it.
      delta: Of (epsilon, delta).
      confidence: Of the bound.
      threshold: From which score on a trial is taken for one with the canary, chosen before these
        trials were seen; None to let every second trial of each kind choose it.
      gaussian: Whether the bound is that of mu-Gaussian privacy, which assumes more and needs a
        delta above 0.
      name: Of the audit.
      assumes: What makes trials of the scores.

    Raises:
      ValueError: For scores that are no numbers, or a delta or confidence that is none.

    Example:
      >>> draws = np.random.default_rng(0).standard_normal((2, 4000))
      >>> bound = audit_scores(draws[0] + 1, draws[1], delta=1e-5)
      >>> gaussian = audit_scores(draws[0] + 1, draws[1], delta=1e-5, gaussian=True)
      >>> 1.0 < bound.epsilon < gaussian.epsilon < 4.38  # what noise of 1 spends
      True
    """
    check_delta(delta)
    inside, outside = _scores("inside", inside), _scores("outside", outside)
    if threshold is None:
        threshold = best_threshold(inside[::2], outside[::2], delta, confidence, gaussian)
        inside, outside = inside[1::2], outside[1::2]
    counts = _errors(np.sort(inside), np.sort(outside), np.float64(threshold))
    numbers = dict(
        zip(("false_positives", "outside", "false_negatives", "inside"), counts, strict=True)
    )
    numbers = {key: int(count) for key, count in numbers.items()} | {"threshold": threshold}
    if gaussian:
        mu = float(mu_of_errors(*counts, confidence=confidence))
        epsilon, assumes = epsilon_of_gaussian_privacy(mu, delta), (*assumes, _GAUSSIAN)
        numbers["mu"] = mu
    else:
        epsilon = float(epsilon_of_errors(*counts, delta=delta, confidence=confidence))
    return Bound(name, epsilon, confidence, delta, None, assumes, numbers)


def _rates(
    false_positives: Any, outside: Any, false_negatives: Any, inside: Any, confidence: float
) -> tuple[np.ndarray, np.ndarray]:
    """Returns which rates (FPR, FNR) are not above, both at once."""
    check_confidence(confidence)
    each = (1 + confidence) / 2
    return (
        clopper_pearson_above(false_positives, outside, each),
        clopper_pearson_above(false_negatives, inside, each),
    )


def _errors(inside: np.ndarray, outside: np.ndarray, thresholds: np.ndarray) -> tuple:
    """Returns (false positives, outside, false negatives, inside) by scores in their order."""
    missed = np.searchsorted(inside, thresholds)
    rejected = np.searchsorted(outside, thresholds)
    return len(outside) - rejected, len(outside), missed, len(inside)


def _scores(name: str, scores: Any) -> np.ndarray:
    """Returns scores as float64[n]."""
    scores = np.asarray(scores, np.float64).reshape(-1)
    if np.isnan(scores).any():
        raise ValueError(
            f"{name}: {np.isnan(scores).sum()} of {len(scores)} scores are NaN. Give each trial a "
            "score, such as -inf where the attacker learned nothing."
        )
    return scores
