"""Computes precision, recall and F1 from exact counts by class, on the host."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fljax.core.metrics import ACCURACY, LOSS, Metric


class ClassCounts(NamedTuple):
    """Counts by class: all that precision, recall, F1 and IoU need of a confusion matrix.

    Attributes:
      hits: Integer[C] targets of each class that were predicted correctly (true positives).
      actual: Integer[C] targets of each class. For some nothing may be predicted: each of them is
        one wrong prediction, of no class.
      predicted: Integer[C] predictions of each class.
    """

    hits: np.ndarray
    actual: np.ndarray
    predicted: np.ndarray


def micro(counts: ClassCounts) -> float:
    """Returns the share of correct predictions, every target counting alike.

    With one label and one prediction a target, each wrong one is one false positive and one false
    negative, so that precision, recall and F1 over all targets equal the accuracy.
    """
    hits, actual, _ = _occurring(counts)
    return hits.sum() / actual.sum() if actual.size else np.nan


def precision_macro(counts: ClassCounts) -> float:
    """Returns the mean over classes of hits ÷ predictions."""
    hits, _, predicted = _occurring(counts)
    return _mean(hits / np.maximum(predicted, 1))


def recall_macro(counts: ClassCounts) -> float:
    """Returns the mean over classes of hits ÷ targets."""
    hits, actual, _ = _occurring(counts)
    return _mean(hits / np.maximum(actual, 1))


def f1_macro(counts: ClassCounts) -> float:
    """Returns the mean of the classes' F1 (Opitz and Burst, arXiv:1911.03347)."""
    hits, actual, predicted = _occurring(counts)
    return _mean(2 * hits / np.maximum(actual + predicted, 1))


# What tasks of integer targets are judged by. Macro values are unweighted means over the classes
# that occur among targets or predictions, where a quotient without denominator (a class that is
# never predicted has no precision) counts as 0: scikit-learn's convention with `zero_division=0`.
# F1 is that of the summed counts, not a mean over the clients' F1.
CLASS_METRICS = (
    ACCURACY,
    Metric("precision_micro", value=micro, of_counts=True, label="Precision (micro)"),
    Metric("recall_micro", value=micro, of_counts=True, label="Recall (micro)"),
    Metric("f1_micro", value=micro, of_counts=True, label="F1 (micro)"),
    Metric("precision_macro", value=precision_macro, of_counts=True, label="Precision (macro)"),
    Metric("recall_macro", value=recall_macro, of_counts=True, label="Recall (macro)"),
    Metric("f1_macro", value=f1_macro, of_counts=True, label="F1 (macro)"),
    LOSS,
    Metric("top5", label="Top-5 accuracy"),
)


def _occurring(counts: ClassCounts) -> ClassCounts:
    """Returns the counts of classes that occur among targets or predictions, in int64."""
    hits, actual, predicted = (np.asarray(count).astype(np.int64) for count in counts)
    occurs = (actual > 0) | (predicted > 0)
    return ClassCounts(hits[occurs], actual[occurs], predicted[occurs])


def _mean(values: np.ndarray) -> float:
    return values.mean() if values.size else np.nan
