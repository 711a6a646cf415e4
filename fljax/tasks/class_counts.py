"""Computes precision, recall, F1 and their like from exact counts by class, on the host."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from fljax.core.metrics import ACCURACY, LOSS, LOWER, Metric, Sum


class ClassCounts(NamedTuple):
    """Counts by class: all that precision, recall, F1 and IoU need of a confusion matrix.

    Attributes:
      hits: Integer[..., C] targets of each class that were predicted correctly (true positives).
      actual: Integer[..., C] targets of each class. For some nothing may be predicted: each of them
        is one wrong prediction, of no class.
      predicted: Integer[..., C] predictions of each class.
    """

    hits: Any
    actual: Any
    predicted: Any


# What follows are values [...] of counts [..., C]: of all rows, or of many clients at once. A
# quotient without denominator is 0 (a class that is never predicted has no precision): the
# convention of scikit-learn with `zero_division=0`. Without targets, everything is NaN.


def precisions(counts: ClassCounts) -> np.ndarray:
    """Returns hits ÷ predictions of each class, [..., C]."""
    return ratio(counts.hits, counts.predicted)


def recalls(counts: ClassCounts) -> np.ndarray:
    """Returns hits ÷ targets of each class, [..., C]."""
    return ratio(counts.hits, counts.actual)


def f1s(counts: ClassCounts) -> np.ndarray:
    """Returns the F1 of each class, [..., C]."""
    return ratio(2 * counts.hits, counts.actual + counts.predicted)


def specificities(counts: ClassCounts) -> np.ndarray:
    """Returns, of each class, the share of the targets of others that were taken for others.

    What nothing is predicted of was taken for none. It counts as right for no class: how many of
    such targets are of which class is not known, and of more than two classes a share may be lower
    than it is.
    """
    others, hits, predicted = (
        each.sum(-1, keepdims=True) - each
        for each in (counts.actual, counts.hits, counts.predicted)
    )
    # those of the class itself that were missed may stand among the predictions of others
    missed = counts.actual - counts.hits
    return ratio(np.maximum(predicted - missed, hits), others)


def micro(counts: ClassCounts) -> Any:
    """Returns the share of correct predictions, every target counting alike.

    With one label and one prediction a target, each wrong one is one false positive and one false
    negative, so that precision, recall and F1 over all targets equal the accuracy.
    """
    targets = counts.actual.sum(-1)
    return np.where(targets > 0, ratio(counts.hits.sum(-1), targets), np.nan)


def macro(values: Callable[[ClassCounts], np.ndarray]) -> Callable[[ClassCounts], Any]:
    """Returns the mean over the classes that occur among targets or predictions."""
    return lambda counts: _mean(values(counts), (counts.actual > 0) | (counts.predicted > 0))


def weighted(values: Callable[[ClassCounts], np.ndarray]) -> Callable[[ClassCounts], Any]:
    """Returns the mean over the classes, each with the weight of its targets."""
    return lambda counts: _mean(values(counts), counts.actual)


def of_class(number: int, values: Callable[[ClassCounts], np.ndarray]) -> Callable:
    """Returns the value of one class."""

    def value(counts):
        return np.where(counts.actual.sum(-1) > 0, values(counts)[..., number], np.nan)

    return value


def balanced_accuracy(counts: ClassCounts) -> Any:
    """Returns the mean recall of the classes that have targets."""
    return _mean(recalls(counts), counts.actual > 0)


def matthews(counts: ClassCounts) -> Any:
    """Returns the correlation of targets and predictions (Gorodkin 2004); 0 where one is constant.

    What is predicted of no class counts as a class of its own.
    """
    targets = counts.actual.sum(-1)
    # as shares, whose squares do not overflow
    hits, actual, predicted = (each / np.maximum(targets, 1)[..., None] for each in counts)
    both = hits.sum(-1) - (actual * predicted).sum(-1)
    nothing = 1 - predicted.sum(-1)
    scale = (1 - (actual**2).sum(-1)) * (1 - (predicted**2).sum(-1) - nothing**2)
    constant = (counts.actual.max(-1) == targets) | (counts.predicted.max(-1) == targets)
    scale = np.where(constant, 0, np.sqrt(np.maximum(scale, 0)))
    return np.where(targets > 0, ratio(both, scale), np.nan)


_NAMES: dict[str, tuple[str, Callable[[ClassCounts], np.ndarray]]] = {
    "precision": ("Precision", precisions),
    "recall": ("Recall", recalls),
    "f1": ("F1", f1s),
}

# name -> (label, value of counts)
VALUES: dict[str, tuple[str, Callable[[ClassCounts], Any]]] = {
    **{f"{name}_micro": (f"{label} (micro)", micro) for name, (label, _) in _NAMES.items()},
    **{f"{name}_macro": (f"{label} (macro)", macro(of)) for name, (label, of) in _NAMES.items()},
    **{
        f"{name}_weighted": (f"{label} (weighted)", weighted(of))
        for name, (label, of) in _NAMES.items()
    },
    "specificity_macro": ("Specificity (macro)", macro(specificities)),
    "balanced_accuracy": ("Balanced accuracy", balanced_accuracy),
    "mcc": ("Matthews correlation", matthews),
}

# Of two classes: values of class 1, the positive one.
POSITIVE: dict[str, tuple[str, Callable[[ClassCounts], Any]]] = {
    **{name: (label, of_class(1, of)) for name, (label, of) in _NAMES.items()},
    "specificity": ("Specificity", of_class(1, specificities)),
}
BY_CLASS = frozenset(VALUES) | frozenset(POSITIVE)

LOG_LOSS = Metric("log_loss", LOWER, label="Log loss")
TOP5 = Metric("top5", label="Top-5 accuracy")

# What tasks of integer targets are judged by where nobody asks. Macro values are unweighted means
# over the classes that occur. F1 is that of the summed counts, not a mean over the clients' F1, and
# macro F1 the mean of the classes' F1 (Opitz and Burst, arXiv:1911.03347).
DEFAULT = (
    "accuracy",
    *(f"{name}_{mean}" for mean in ("micro", "macro") for name in _NAMES),
    "loss",
    "top5",
)

# The sums by example, [B, C], that counts by class are of where clients and groups are to have them
HITS, ACTUAL, PREDICTED = "class_hits", "class_actual", "class_predicted"


def class_metrics(of_examples: bool) -> list[Metric]:
    """Returns all metrics of tasks of classes; arguments as for `by_class`."""
    return [ACCURACY, *by_class(of_examples, VALUES), LOSS, LOG_LOSS, TOP5]


def by_class(
    of_examples: bool, values: Mapping[str, tuple[str, Callable[[ClassCounts], Any]]]
) -> list[Metric]:
    """Returns the metrics of counts by class.

    Args:
      of_examples: Whether they follow from sums by example, and so exist for clients and groups, or
        from the task's counts over all rows.
      values: {name: (label, value of counts)}.
    """
    read = _of_sums if of_examples else _of_counts
    return [
        Metric(name, value=read(value), of_counts=not of_examples, label=label)
        for name, (label, value) in values.items()
    ]


def _of_counts(value: Callable[[ClassCounts], Any]) -> Callable[[ClassCounts], Any]:
    # their products exceed 32 bits
    return lambda counts: value(ClassCounts(*(np.asarray(each, np.int64) for each in counts)))


def _of_sums(value: Callable[[ClassCounts], Any]) -> Callable[[Mapping[str, Sum]], Any]:
    def of_sums(sums):
        found = (np.asarray(sums[name].value) for name in (HITS, ACTUAL, PREDICTED))
        return value(ClassCounts(*(count.astype(np.int64) for count in found)))

    return of_sums


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Returns a quotient, 0 where its denominator is."""
    return numerator / np.where(denominator > 0, denominator, 1) * (denominator > 0)


def _mean(values: np.ndarray, weights: np.ndarray) -> Any:
    """Returns the mean over classes with weights; NaN where these are all 0."""
    total = weights.sum(-1)
    return np.where(total > 0, (values * weights).sum(-1) / np.maximum(total, 1), np.nan)
