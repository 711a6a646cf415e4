"""Precision, recall, F1 and their like against scikit-learn and plain loops."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fljax.core import metrics
from fljax.tasks.class_counts import (
    ACTUAL,
    DEFAULT,
    HITS,
    POSITIVE,
    PREDICTED,
    VALUES,
    ClassCounts,
    class_metrics,
    specificities,
)

NUM_CLASSES = 5
PAIRS = st.lists(
    st.tuples(st.integers(0, NUM_CLASSES - 1), st.integers(0, NUM_CLASSES - 1)), min_size=1
)


def counts_of(actual, predicted, num_classes=NUM_CLASSES):
    """Returns the counts by class; a prediction of -1 is of no class."""
    hits, of_class, taken = (
        np.bincount(labels[labels >= 0], minlength=num_classes)
        for labels in (actual[actual == predicted], actual, predicted)
    )
    return ClassCounts(hits, of_class, taken)


def scores_of(counts):
    found = {name: float(value(counts)) for name, (_, value) in VALUES.items()}
    assert found["precision_micro"] == pytest.approx(found["recall_micro"], nan_ok=True)
    assert found["precision_micro"] == pytest.approx(found["f1_micro"], nan_ok=True)
    return found


def by_scikit_learn(actual, predicted):
    scores = pytest.importorskip("sklearn.metrics")
    expected = {}
    for average in ("micro", "macro", "weighted"):
        values = scores.precision_recall_fscore_support(
            actual, predicted, average=average, zero_division=0
        )
        for name, value in zip(("precision", "recall", "f1"), values, strict=False):
            expected[f"{name}_{average}"] = value
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes that are predicted alone
        expected["balanced_accuracy"] = scores.balanced_accuracy_score(actual, predicted)
        expected["mcc"] = scores.matthews_corrcoef(actual, predicted)
    found = scores.multilabel_confusion_matrix(actual, predicted)
    negatives = found[:, 0].sum(1)
    own = np.where(negatives > 0, found[:, 0, 0] / np.maximum(negatives, 1), 0)
    return expected | {"specificity_macro": own.mean()}


def cases():
    """Yields labels and predictions, of few classes and of many, of constants and of one row."""
    generator = np.random.default_rng(0)
    for rows, classes in ((1, 5), (2, 2), (3, 5), (6, 2), (9, 4), (40, 5), (40, 1)):
        for _ in range(3):
            yield generator.integers(0, classes, rows), generator.integers(0, classes, rows)


def test_metrics_of_all_rows_and_of_clients_equal_scikit_learn():
    labels = [*cases()]
    found = [counts_of(*pair) for pair in labels]
    stacked = ClassCounts(*map(np.stack, zip(*found, strict=True)))
    of_clients = {name: value(stacked) for name, (_, value) in VALUES.items()}
    for client, (pair, counts) in enumerate(zip(labels, found, strict=True)):
        expected = by_scikit_learn(*pair)
        assert scores_of(counts) == pytest.approx(expected, abs=1e-12)
        own = {name: values[client] for name, values in of_clients.items()}
        assert own == pytest.approx(expected, abs=1e-12)


def test_metrics_of_the_positive_class_equal_scikit_learn():
    scores = pytest.importorskip("sklearn.metrics")
    generator = np.random.default_rng(1)
    for rows in (1, 2, 3, 30):
        actual, predicted = generator.integers(0, 2, rows), generator.integers(0, 2, rows)
        counts = counts_of(actual, predicted, 2)
        values = scores.precision_recall_fscore_support(
            actual, predicted, average="binary", zero_division=0
        )
        expected = dict(zip(("precision", "recall", "f1"), values, strict=False))
        expected["specificity"] = scores.recall_score(
            actual, predicted, pos_label=0, zero_division=0
        )
        found = {name: float(value(counts)) for name, (_, value) in POSITIVE.items()}
        assert found == pytest.approx(expected, abs=1e-12)


@settings(max_examples=30)
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
    result = scores_of(counts_of(*np.array(pairs).T))
    assert result["precision_macro"] == pytest.approx(np.mean(precisions), abs=1e-12)
    assert result["recall_macro"] == pytest.approx(np.mean(recalls), abs=1e-12)
    assert result["f1_macro"] == pytest.approx(np.mean(f1s), abs=1e-12)


def test_counts_may_exceed_32_bits_in_sum():
    largest = np.iinfo(np.int32).max
    counts = ClassCounts(*np.array([[largest] * 2, [largest, largest], [largest] * 2], np.int32))
    counts = counts._replace(hits=np.array([largest, 0], np.int32))
    known = {metric.name: metric for metric in class_metrics(of_examples=False)}
    result = {name: known[name].value(counts) for name in VALUES}
    assert result["f1_micro"] == 1 / 2 and result["recall_macro"] == 1 / 2
    assert result["precision_weighted"] == 1 / 2 and abs(result["mcc"]) < 1e-12


def test_f1_is_that_of_the_summed_counts():
    first = counts_of(np.repeat([0, 1], [8, 2]), np.zeros(10, int), 2)
    second = counts_of(np.ones(10, int), np.ones(10, int), 2)
    f1 = lambda counts: VALUES["f1_macro"][1](counts)  # noqa: E731
    both = ClassCounts(*map(np.add, first, second))
    assert f1(both) == pytest.approx((16 / 18 + 20 / 22) / 2)
    assert f1(both) != pytest.approx((f1(first) + f1(second)) / 2, abs=0.1)


def test_what_is_predicted_of_no_class_is_a_wrong_prediction():
    actual, predicted = np.array([0, 0, 1, 1, 2]), np.array([0, -1, 1, 0, -1])
    found = scores_of(counts_of(actual, predicted))
    expected = by_scikit_learn(actual, predicted)
    for name in ("balanced_accuracy", "mcc", "recall_weighted", "recall_micro", "f1_weighted"):
        assert found[name] == pytest.approx(expected[name], abs=1e-12)
    # what nothing is predicted of is rejected rightly by no class
    actual, predicted = np.array([0, 0, 0, 1, 1]), np.array([0, -1, 1, 1, -1])
    counts = counts_of(actual, predicted, 2)
    assert specificities(counts).tolist() == pytest.approx([1 / 2, 1 / 3], abs=1e-15)
    assert specificities(counts_of(actual, np.full(5, -1), 2)).tolist() == [0, 0]


def test_without_targets_there_is_no_score():
    none = ClassCounts(*np.zeros((3, 4), np.int64))
    assert all(math.isnan(value) for value in scores_of(none).values())


def test_named_metrics_follow_from_sums_of_clients_and_groups():
    generator = np.random.default_rng(2)
    actual, predicted = generator.integers(0, 3, (2, 30))
    owners = np.sort(generator.integers(0, 4, 30))
    one_hot = lambda labels: np.arange(3) == labels[:, None]  # noqa: E731
    ones = np.ones(30, np.int32)
    sums = {
        "loss": (ones, ones),
        HITS: (one_hot(actual) & one_hot(predicted), ones),
        ACTUAL: (one_hot(actual), ones),
        PREDICTED: (one_hot(predicted), ones),
    }
    wanted = [metric for metric in class_metrics(of_examples=True) if metric.name in VALUES]
    table = metrics.client_metrics([metrics.LOSS, *wanted], sums, owners, 4)
    groups = metrics.group_metrics(wanted, sums, owners, np.array([*"aabb"]))
    everybody = metrics.global_metrics(wanted, sums)
    for client in range(4):
        own = {metric.name: table[metric.name][client] for metric in wanted}
        rows = owners == client
        assert own == pytest.approx(by_scikit_learn(actual[rows], predicted[rows]), abs=1e-12)
    rows = owners < 2
    expected = by_scikit_learn(actual[rows], predicted[rows])
    assert groups["a"] == pytest.approx(expected, abs=1e-12)
    assert everybody == pytest.approx(by_scikit_learn(actual, predicted), abs=1e-12)
    assert set(DEFAULT) <= {metric.name for metric in class_metrics(of_examples=True)}
