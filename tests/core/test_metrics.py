"""Metrics against scikit-learn, plain loops, and counts that 32 bits cannot hold."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fljax.core import metrics
from fljax.core.metrics import ClassCounts

NUM_CLASSES = 5
PAIRS = st.lists(
    st.tuples(st.integers(0, NUM_CLASSES - 1), st.integers(0, NUM_CLASSES - 1)), min_size=1
)


def confusion_of(pairs):
    matrix = np.zeros((NUM_CLASSES, NUM_CLASSES), np.int32)
    for actual, predicted in pairs:
        matrix[actual, predicted] += 1
    return matrix


@given(PAIRS)
def test_confusion_metrics_equal_scikit_learn(pairs):
    scores = pytest.importorskip("sklearn.metrics")
    actual, predicted = zip(*pairs, strict=True)
    expected = {"accuracy": scores.accuracy_score(actual, predicted)}
    for average in ("micro", "macro"):
        values = scores.precision_recall_fscore_support(
            actual, predicted, average=average, zero_division=0
        )
        for name, value in zip(("precision", "recall", "f1"), values, strict=False):
            expected[f"{name}_{average}"] = value
    assert metrics.from_confusion(confusion_of(pairs)) == pytest.approx(expected, abs=1e-12)


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
    result = metrics.from_confusion(confusion_of(pairs))
    assert result["precision_macro"] == pytest.approx(np.mean(precisions), abs=1e-12)
    assert result["recall_macro"] == pytest.approx(np.mean(recalls), abs=1e-12)
    assert result["f1_macro"] == pytest.approx(np.mean(f1s), abs=1e-12)


@given(PAIRS)
def test_class_counts_give_the_metrics_of_the_matrix(pairs):
    matrix = confusion_of(pairs)
    counts = ClassCounts(np.diagonal(matrix), matrix.sum(1), matrix.sum(0))
    assert metrics.from_confusion(counts) == metrics.from_confusion(matrix)


def test_confusion_counts_may_exceed_32_bits_in_sum():
    largest = np.iinfo(np.int32).max
    result = metrics.from_confusion(np.array([[largest, largest], [0, largest]], np.int32))
    assert result["accuracy"] == 2 / 3
    assert result["recall_macro"] == 0.75
    assert result["precision_macro"] == 0.75


def test_f1_is_that_of_the_summed_confusion():
    first, second = np.array([[8, 0], [2, 0]]), np.array([[0, 0], [0, 10]])
    f1 = lambda matrix: metrics.from_confusion(matrix)["f1_macro"]  # noqa: E731
    assert f1(first + second) == pytest.approx((16 / 18 + 20 / 22) / 2)
    assert f1(first + second) != pytest.approx((f1(first) + f1(second)) / 2, abs=0.1)


def test_without_targets_metrics_are_nan():
    sums = {name: np.zeros(3, np.int32) for name in ("loss", "weight", "correct", "correct_top5")}
    result = metrics.global_metrics(sums, np.zeros((4, 4), np.int32))
    assert set(result) >= {"loss", "accuracy", "top5", "f1_micro", "f1_macro"}
    assert all(math.isnan(value) for value in result.values())


def test_global_metrics_are_means_over_targets():
    sums = {
        "loss": np.array([3.0, 1.0, 0.0], np.float32),
        "weight": np.array([4, 1, 0], np.int32),
        "correct": np.array([1, 1, 0], np.int32),
        "correct_top5": np.array([3, 1, 0], np.int32),
    }
    assert metrics.global_metrics(sums) == {"loss": 0.8, "accuracy": 0.4, "top5": 0.8}
    only_loss = {name: sums[name] for name in ("loss", "weight")}
    assert metrics.global_metrics(only_loss) == {"loss": 0.8}


def test_global_sums_are_exact_where_32_bits_are_not():
    largest = np.iinfo(np.int32).max
    # float32 cannot hold 2^24 + 1, nor int32 the sum of three largest numbers
    loss = np.array([2**24, 1, 1], np.float32)
    weight = np.full(3, largest, np.int32)
    correct = np.array([largest, 1, 0], np.int32)
    result = metrics.global_metrics({"loss": loss, "weight": weight, "correct": correct})
    assert result["loss"] == (2**24 + 2) / (3 * largest)
    assert result["accuracy"] == (largest + 1) / (3 * largest)


@given(
    st.integers(1, 6).flatmap(
        lambda num_clients: st.tuples(
            st.just(num_clients),
            st.lists(
                st.tuples(
                    st.integers(0, num_clients - 1), st.integers(0, 3), st.floats(0, 9, width=32)
                ),
                min_size=1,
            ),
        )
    )
)
def test_client_metrics_equal_a_loop_over_clients(case):
    num_clients, rows = case
    owners, weight, loss = (np.array(column) for column in zip(*rows, strict=True))
    correct = weight // 2
    sums = {"loss": loss, "weight": weight, "correct": correct, "correct_top5": weight}
    result = metrics.client_metrics(sums, owners, num_clients)
    position = 0
    for client in range(num_clients):
        mine = [number for number in range(len(rows)) if owners[number] == client]
        targets = sum(int(weight[number]) for number in mine)
        if not targets:
            assert client not in result["client"]
            continue
        assert result["client"][position] == client
        assert result["examples"][position] == len(mine)
        assert result["weight"][position] == targets
        expected = math.fsum(loss[number] for number in mine) / targets
        assert result["loss"][position] == pytest.approx(expected, rel=1e-12)
        hits = sum(int(correct[number]) for number in mine)
        assert result["accuracy"][position] == hits / targets
        assert result["top5"][position] == 1
        position += 1
    assert all(len(column) == position for column in result.values())
    assert all(result[name].dtype == np.int64 for name in ("client", "examples", "weight"))


def test_a_diverged_loss_stays_with_its_client():
    sums = {"loss": np.array([np.nan, 1.0]), "weight": np.ones(2, np.int32)}
    result = metrics.client_metrics(sums, np.array([0, 2]), 3)
    np.testing.assert_array_equal(result["client"], [0, 2])
    np.testing.assert_array_equal(result["loss"], [np.nan, 1.0])


def test_client_summary_describes_the_spread():
    accuracy = np.arange(21)[::-1] / 20
    result = metrics.client_summary(accuracy)
    assert result == pytest.approx(
        {
            "mean": 0.5,
            "std": math.sqrt(sum((value / 20 - 0.5) ** 2 for value in range(21)) / 21),
            "p10": 0.1,
            "p50": 0.5,
            "p90": 0.9,
            "worst": 0.05,  # the mean of the lowest 3 of 21: 0, 0.05 and 0.1
        }
    )


def test_client_summary_of_one_client_and_of_none():
    alone = metrics.client_summary(np.array([0.25], np.float32))
    assert alone == {"mean": 0.25, "std": 0, "p10": 0.25, "p50": 0.25, "p90": 0.25, "worst": 0.25}
    nobody = metrics.client_summary(np.array([]))
    assert nobody.keys() == alone.keys()
    assert all(math.isnan(value) for value in nobody.values())
