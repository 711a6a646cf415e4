"""Precision, recall and F1 against scikit-learn and plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fljax.tasks.class_counts import CLASS_METRICS, ClassCounts

NUM_CLASSES = 5
PAIRS = st.lists(
    st.tuples(st.integers(0, NUM_CLASSES - 1), st.integers(0, NUM_CLASSES - 1)), min_size=1
)


def confusion_of(pairs):
    matrix = np.zeros((NUM_CLASSES, NUM_CLASSES), np.int32)
    for actual, predicted in pairs:
        matrix[actual, predicted] += 1
    return matrix


def scores_of(matrix):
    """Returns the metrics of a confusion matrix, by way of the counts that tasks keep."""
    matrix = matrix.astype(np.int64)
    counts = ClassCounts(np.diagonal(matrix), matrix.sum(1), matrix.sum(0))
    found = {metric.name: metric.value(counts) for metric in CLASS_METRICS if metric.of_counts}
    np.testing.assert_array_equal(found["precision_micro"], found["recall_micro"])
    np.testing.assert_array_equal(found["precision_micro"], found["f1_micro"])
    return found


@given(PAIRS)
def test_confusion_metrics_equal_scikit_learn(pairs):
    scores = pytest.importorskip("sklearn.metrics")
    actual, predicted = zip(*pairs, strict=True)
    expected = {"f1_micro": scores.accuracy_score(actual, predicted)}
    for average in ("micro", "macro"):
        values = scores.precision_recall_fscore_support(
            actual, predicted, average=average, zero_division=0
        )
        for name, value in zip(("precision", "recall", "f1"), values, strict=False):
            expected[f"{name}_{average}"] = value
    assert scores_of(confusion_of(pairs)) == pytest.approx(expected, abs=1e-12)


@given(PAIRS)
def test_confusion_metrics_equal_a_loop_over_classes(pairs):
    precisions, recalls, f1s = [], [], []
    for label in sorted({label for pair in pairs for label in pair}):
        hits = sum(actual == predicted == label for actual, predicted in pairs)
        missed = sum(actual == label != predicted for actual, predicted in pairs)
        false = sum(predicted == label != actual for actual, predicted in pairs)
        precision = hits / (hits + false) if hits + false else 0.0
        recall = hits / (hits + missed) if hits + missed else 0.0
        both = precision + recall
        precisions.append(precision)
        recalls.append(recall)
        f1s.append(2 * precision * recall / both if both else 0.0)
    result = scores_of(confusion_of(pairs))
    assert result["precision_macro"] == pytest.approx(np.mean(precisions), abs=1e-12)
    assert result["recall_macro"] == pytest.approx(np.mean(recalls), abs=1e-12)
    assert result["f1_macro"] == pytest.approx(np.mean(f1s), abs=1e-12)


def test_counts_may_exceed_32_bits_in_sum():
    largest = np.iinfo(np.int32).max
    result = scores_of(np.array([[largest, largest], [0, largest]], np.int32))
    assert result["f1_micro"] == 2 / 3
    assert result["recall_macro"] == 0.75
    assert result["precision_macro"] == 0.75


def test_f1_is_that_of_the_summed_confusion():
    first, second = np.array([[8, 0], [2, 0]]), np.array([[0, 0], [0, 10]])
    f1 = lambda matrix: scores_of(matrix)["f1_macro"]  # noqa: E731
    assert f1(first + second) == pytest.approx((16 / 18 + 20 / 22) / 2)
    assert f1(first + second) != pytest.approx((f1(first) + f1(second)) / 2, abs=0.1)


def test_without_targets_there_is_no_score():
    assert all(math.isnan(value) for value in scores_of(np.zeros((4, 4), np.int32)).values())
