"""Curves: how well scores tell members from others, at every threshold and at strict ones.

An attack that is right about few people and sure of it is a breach, which averages hide: so beside
the area under the ROC stands the true positive rate where hardly anybody is accused wrongly
(Carlini et al. 2021, arXiv:2112.03570). All who have one score are judged alike, so that rates are
of whole groups of ties. The rate at an asked false positive rate is that of the lowest threshold
whose false positive rate is not above it: with 500 others, 0.1 % means none of them, and what was
attained is recorded beside it. Intervals are those of Clopper and Pearson (1934) for the members
found at this threshold. They take it as given: that it was found on the same others adds to what is
not known.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from fljax.audits.intervals import check_confidence, clopper_pearson
from fljax.core.values import Field, Interval, checked

FALSE_POSITIVE_RATES = (0.001, 0.01)
_SHARE = Field(None, float, Interval(0, 1))


class Roc(NamedTuple):
    """The receiver operating characteristic of scores, a step for each of them.

    Attributes:
      false_positives: int64[S], others at or above each threshold, from 0 to all.
      true_positives: int64[S], members at or above it.
      thresholds: float64[S], inf and then the scores that occur, descending.
    """

    false_positives: np.ndarray
    true_positives: np.ndarray
    thresholds: np.ndarray

    @property
    def others(self) -> int:
        """The number of those who are no members."""
        return int(self.false_positives[-1])

    @property
    def members(self) -> int:
        """The number of members."""
        return int(self.true_positives[-1])

    def at(self, rate: Any) -> Any:
        """Returns int64, the last step whose false positive rate is not above each asked for."""
        # the rate as a number of others: 0.29 of 100 are 29, whatever is rounded
        most = np.floor(np.asarray(rate) * self.others * (1 + 1e-12))
        return np.searchsorted(self.false_positives, most, "right") - 1

    def rates(self, rate: Any) -> np.ndarray:
        """Returns float64, the true positive rate at each false positive rate, for plots.

        They are NaN where there are no members.

        Example:
          >>> roc([3.0, 2.0, 1.0, 0.0], [True, False, True, False]).rates([0.0, 0.5]).tolist()
          [0.5, 1.0]
        """
        return self.true_positives[self.at(rate)] / (self.members or math.nan)


class Rate(NamedTuple):
    """The true positive rate at a false positive rate.

    Attributes:
      asked: The false positive rate that is not to be exceeded.
      attained: The one that is attained.
      tpr: The true positive rate.
      low, high: Its interval.
      threshold: The score from which on rows are called members; inf for none.
    """

    asked: float
    attained: float
    tpr: float
    low: float
    high: float
    threshold: float


class Verdict(NamedTuple):
    """The success of scores in telling members from others; NaN where there are none of a kind.

    Attributes:
      members: How many members there are.
      others: How many others.
      auc: The probability that a member has a higher score than another, ties counting half.
      balanced_accuracy: The mean of true positive and true negative rate at the threshold that is
        best in hindsight; 0.5 says nothing.
      rates: At strict false positive rates.
      confidence: Of the intervals.
    """

    members: int
    others: int
    auc: float
    balanced_accuracy: float
    rates: tuple[Rate, ...]
    confidence: float


class Judgement(NamedTuple):
    """The success of an attack on several models.

    Attributes:
      pooled: Of the scores on all models together, with one threshold, as Carlini et al. have it.
        Rows occur once a model there, so that its intervals are of rows and models as they were
        drawn; they would be wider for other rows.
      each: Of each model.
    """

    pooled: Verdict
    each: tuple[Verdict, ...]

    def spread(self) -> dict[str, tuple[float, float]]:
        """Returns {number: (mean, standard deviation) over models} of what each verdict holds.

        The deviation, of a sample, is NaN of one model.

        Example:
          >>> both = np.array([[3.0, 1.0], [1.0, 1.0]])
          >>> judge_models(both, [[True, False], [True, False]]).spread()["auc"][0]
          0.75
        """
        values = {
            "auc": [verdict.auc for verdict in self.each],
            "balanced_accuracy": [verdict.balanced_accuracy for verdict in self.each],
        }
        for place, rate in enumerate(self.pooled.rates):
            values[f"tpr@{rate.asked:g}"] = [verdict.rates[place].tpr for verdict in self.each]
        return {name: _mean_and_deviation(np.array(each)) for name, each in values.items()}


def roc(scores: Any, members: Any) -> Roc:
    """Returns the receiver operating characteristic of scores.

    Args:
      scores: [T], higher where membership is likelier; infinities are allowed.
      members: bool[T].

    Raises:
      ValueError: For shapes that do not fit, or scores that are NaN.

    Example:
      >>> found = roc([0.9, 0.5, 0.5, 0.1], [True, True, False, False])
      >>> found.false_positives.tolist(), found.true_positives.tolist()
      ([0, 0, 1, 2], [0, 1, 2, 2])
    """
    scores, members = np.asarray(scores, np.float64), np.asarray(members)
    if scores.ndim != 1 or members.shape != scores.shape or members.dtype != bool:
        raise ValueError(
            f"scores have shape {list(scores.shape)}, and members {list(members.shape)} and type "
            f"{members.dtype}; give a score [T] and a bool [T] for each row."
        )
    if np.isnan(scores).any():
        raise ValueError(
            f"{int(np.isnan(scores).sum())} of {len(scores)} scores are NaN. Leave these rows out, "
            "or let -inf be the score of rows of which nothing is known."
        )
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    last = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True)) if len(scores) else order
    true = members[order].cumsum()[last]
    counts = np.concatenate([[0], true]).astype(np.int64)
    totals = np.concatenate([[0], last + 1]).astype(np.int64)
    return Roc(totals - counts, counts, np.concatenate([[np.inf], ordered[last]]))


def judge(
    scores: Any,
    members: Any,
    rates: tuple[float, ...] = FALSE_POSITIVE_RATES,
    confidence: float = 0.95,
) -> Verdict:
    """Returns how well scores tell members from others.

    Args:
      scores: [T], higher where membership is likelier.
      members: bool[T].
      rates: False positive rates at which the true positive rate is told.
      confidence: Of the intervals.

    Raises:
      ValueError: For shapes that do not fit, scores that are NaN, or numbers out of range.

    Example:
      >>> verdict = judge([4.0, 3.0, 2.0, 1.0], [True, True, False, True], rates=(0.0,))
      >>> verdict.auc, round(verdict.rates[0].tpr, 3), round(verdict.rates[0].low, 3)
      (0.6666666666666666, 0.667, 0.094)
    """
    check_confidence(confidence)
    curve = roc(scores, members)
    told = tuple(_rate(curve, checked("rates", each, _SHARE), confidence) for each in rates)
    if not curve.members or not curve.others:
        return Verdict(curve.members, curve.others, math.nan, math.nan, told, confidence)
    true = curve.true_positives / curve.members
    false = curve.false_positives / curve.others
    pairs = np.diff(curve.false_positives) * (curve.true_positives[1:] + curve.true_positives[:-1])
    area = float(pairs.sum()) / (2 * curve.members * curve.others)
    best = float((1 + true - false).max() / 2)
    return Verdict(curve.members, curve.others, area, best, told, confidence)


def judge_models(scores: Any, members: Any, **options: Any) -> Judgement:
    """Returns how well an attack does on several models.

    Args:
      scores: [A, T] of T rows under A models.
      members: bool[A, T].
      **options: As for `judge`.

    Example:
      >>> judgement = judge_models([[1.0, 0.0], [0.0, 1.0]], [[True, False], [False, True]])
      >>> judgement.pooled.auc, len(judgement.each)
      (1.0, 2)
    """
    scores, members = np.asarray(scores, np.float64), np.asarray(members)
    if scores.ndim != 2 or scores.shape != members.shape:
        raise ValueError(
            f"scores have shape {list(scores.shape)} and members {list(members.shape)}; give "
            "[models, rows] of both."
        )
    each = tuple(judge(*pair, **options) for pair in zip(scores, members, strict=True))
    return Judgement(judge(scores.ravel(), members.ravel(), **options), each)


def judge_subsets(scores: Any, members: Any, labels: Any, **options: Any) -> dict[str, Verdict]:
    """Returns {label: verdict} of subsets of the rows, such as classes, groups or clients.

    Each subset has thresholds of its own, at which no more than the asked share of its own others
    are accused.

    Args:
      scores, members: [T], or [A, T] of A models, which are pooled.
      labels: [T] the subset of each row.
      **options: As for `judge`.

    Example:
      >>> found = judge_subsets([1.0, 0.0, 5.0, 6.0], [True, False, True, False], [3, 3, 7, 7])
      >>> {name: verdict.auc for name, verdict in found.items()}
      {'3': 1.0, '7': 0.0}
    """
    scores, members, labels = np.asarray(scores), np.asarray(members), np.asarray(labels)
    if scores.shape != members.shape or labels.shape != scores.shape[-1:]:
        raise ValueError(
            f"scores, members and labels have shapes {list(scores.shape)}, {list(members.shape)} "
            f"and {list(labels.shape)}; give the first two alike, and a label for each row."
        )
    subsets = {str(label): labels == label for label in np.unique(labels).tolist()}
    return {
        label: judge(scores[..., rows].ravel(), members[..., rows].ravel(), **options)
        for label, rows in subsets.items()
    }


def plain(record: Any) -> Any:
    """Returns a record of this module as JSON has it: names and numbers, None for NaN and infinity.

    Example:
      >>> plain(judge([1.0, 0.0], [True, False], rates=(0.5,)))["rates"][0]["threshold"]
      1.0
    """
    if isinstance(record, Judgement):
        spread = {
            name: {"mean": plain(mean), "sd": plain(sd)}
            for name, (mean, sd) in record.spread().items()
        }
        return {"pooled": plain(record.pooled), "each": plain(record.each), "spread": spread}
    if hasattr(record, "_asdict"):
        return {name: plain(value) for name, value in record._asdict().items()}
    if isinstance(record, dict):
        return {name: plain(value) for name, value in record.items()}
    if isinstance(record, tuple | list):
        return [plain(value) for value in record]
    if isinstance(record, np.ndarray):
        return plain(record.tolist())
    return None if isinstance(record, float) and not math.isfinite(record) else record


def _rate(curve: Roc, asked: float, confidence: float) -> Rate:
    if not curve.members or not curve.others:
        return Rate(asked, math.nan, math.nan, math.nan, math.nan, math.nan)
    step = int(curve.at(asked))
    hits = int(curve.true_positives[step])
    low, high = map(float, clopper_pearson(hits, curve.members, confidence))
    attained = int(curve.false_positives[step]) / curve.others
    threshold = float(curve.thresholds[step])
    return Rate(asked, attained, hits / curve.members, low, high, threshold)


def _mean_and_deviation(values: np.ndarray) -> tuple[float, float]:
    values = values[~np.isnan(values)]
    if not len(values):
        return math.nan, math.nan
    return float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else math.nan
