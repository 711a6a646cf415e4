"""Metrics on the host, from exact counts: integers in int64, losses in float64.

The devices hand over sums: per example its summed loss, its number of targets and how many of them
were predicted correctly; over all examples the confusion counts. Everything here is a quotient of
such sums, so it does not depend on how examples were spread over batches, devices or clients. In
particular, F1 is that of the summed confusion, not a mean over the clients' F1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

# A confusion matrix of int32 takes 4 MB at this size; beyond it only `ClassCounts` are kept, from
# which the same metrics follow.
MAX_CONFUSION_CLASSES = 1024

# names of per-example sums -> names of their quotient by the number of targets
_MEANS = {"loss": "loss", "correct": "accuracy", "correct_top5": "top5"}


class ClassCounts(NamedTuple):
    """Confusion counts without their off-diagonal: all that precision, recall and F1 need.

    Attributes:
      hits: Integer[C] targets of each class that were predicted correctly (true positives).
      actual: Integer[C] targets of each class.
      predicted: Integer[C] predictions of each class.
    """

    hits: np.ndarray
    actual: np.ndarray
    predicted: np.ndarray


def from_confusion(
    confusion: np.ndarray | ClassCounts, unpredicted: np.ndarray | None = None
) -> dict[str, float]:
    """Computes accuracy, precision, recall and F1.

    Micro values count every target alike. Macro values are unweighted means over the classes that
    occur among targets or predictions, where a quotient without denominator (a class that is never
    predicted has no precision) counts as 0: scikit-learn's convention with `zero_division=0`. Macro
    F1 is the mean of the classes' F1. (Opitz and Burst, arXiv:1911.03347, compare the conventions.)

    Args:
      confusion: Integer[C, C], rows actual, columns predicted; or `ClassCounts`.
      unpredicted: Integer[C] further targets of each class, for which nothing was predicted; each
        is one wrong prediction, of no class. None if there are none.

    Returns:
      {"accuracy", "precision_micro", "recall_micro", "f1_micro", "precision_macro",
      "recall_macro", "f1_macro"}; NaN if nothing was counted.
    """
    if not isinstance(confusion, ClassCounts):
        matrix = np.asarray(confusion).astype(np.int64)
        confusion = ClassCounts(np.diagonal(matrix), matrix.sum(1), matrix.sum(0))
    hits, actual, predicted = (np.asarray(counts).astype(np.int64) for counts in confusion)
    if unpredicted is not None:
        actual = actual + np.asarray(unpredicted).astype(np.int64)
    occurs = (actual > 0) | (predicted > 0)
    hits, actual, predicted = hits[occurs], actual[occurs], predicted[occurs]
    accuracy = _quotient(hits.sum(), actual.sum())
    # one label and one prediction a target: each wrong one is one false positive and one false
    # negative, so the micro values all equal the accuracy
    return {
        "accuracy": accuracy,
        "precision_micro": accuracy,
        "recall_micro": accuracy,
        "f1_micro": accuracy,
        "precision_macro": _mean(hits / np.maximum(predicted, 1)),
        "recall_macro": _mean(hits / np.maximum(actual, 1)),
        "f1_macro": _mean(2 * hits / np.maximum(actual + predicted, 1)),
    }


def global_metrics(
    per_example: Mapping[str, np.ndarray],
    confusion: np.ndarray | ClassCounts | None = None,
    unpredicted: np.ndarray | None = None,
) -> dict[str, float]:
    """Computes the metrics over all examples together.

    Args:
      per_example: {"loss": float[R], "weight": int[R], "correct": int[R], "correct_top5": int[R]}
        sums over each example's targets; only "loss" and "weight" are required.
      confusion: Integer[C, C], `ClassCounts`, or None for tasks without classes.
      unpredicted: As in `from_confusion`.

    Returns:
      {"loss", "accuracy", "top5"} per target, and those of `from_confusion`. Without targets, NaN.
    """
    targets = np.sum(per_example["weight"], dtype=np.int64)
    classes = {} if confusion is None else from_confusion(confusion, unpredicted)
    means = {
        name: _quotient(_sum(per_example[key]), targets)
        for key, name in _MEANS.items()
        if key in per_example
    }
    return classes | means


def client_metrics(
    per_example: Mapping[str, np.ndarray], owners: np.ndarray, num_clients: int
) -> dict[str, np.ndarray]:
    """Computes each client's own metrics.

    Args:
      per_example: Sums over each example's targets, as in `global_metrics`.
      owners: Integer[R] client of each example.
      num_clients: Size of the population that `owners` refers to.

    Returns:
      {"client": int64[K] ascending, "examples": int64[K], "weight": int64[K] targets, "loss":
      float64[K], "accuracy": float64[K], "top5": float64[K]}, the last two if there are such sums.
      A client without targets has no metrics and is left out, so NaN means that the model's loss is
      NaN on that client.
    """
    examples = np.bincount(owners, minlength=num_clients)
    # float64 sums of integers are exact below 2^53
    sums = {
        name: np.bincount(owners, weights=values, minlength=num_clients)
        for name, values in per_example.items()
    }
    clients = np.flatnonzero(sums["weight"])
    targets = sums["weight"][clients]
    counts = {
        "client": clients.astype(np.int64),
        "examples": examples[clients].astype(np.int64),
        "weight": targets.astype(np.int64),
    }
    means = {name: sums[key][clients] / targets for key, name in _MEANS.items() if key in sums}
    return counts | means


def group_metrics(
    per_example: Mapping[str, np.ndarray], owners: np.ndarray, groups: np.ndarray
) -> dict[Any, dict[str, float]]:
    """Computes the metrics of each group of clients, every target counting alike.

    Args:
      per_example: Sums over each example's targets, as in `global_metrics`.
      owners: Integer[R] client of each example.
      groups: [N] group of each client, numbers or strings.

    Returns:
      {group: {"loss", "accuracy", "top5"}}, the last two if there are such sums; groups without
      targets are left out.
    """
    values, place = np.unique(groups, return_inverse=True)
    sums = {
        name: np.bincount(place[owners], weights=values_of, minlength=len(values))
        for name, values_of in per_example.items()
    }
    return {
        value: {
            name: float(sums[key][number] / sums["weight"][number])
            for key, name in _MEANS.items()
            if key in sums
        }
        for number, value in enumerate(values.tolist())
        if sums["weight"][number]
    }


def client_summary(accuracy: np.ndarray) -> dict[str, float]:
    """Describes how a metric is spread over clients, each client counting once.

    Args:
      accuracy: float[K], one value a client, such as `client_metrics(...)["accuracy"]`.

    Returns:
      {"mean", "std", "p10", "p50", "p90", "worst"}: the population's standard deviation,
      percentiles by linear interpolation, and the mean over the tenth of the clients that fare
      worst (rounded up, so at least one client). Without clients, NaN.
    """
    ordered = np.sort(np.asarray(accuracy, np.float64))
    if not ordered.size:
        return dict.fromkeys(("mean", "std", "p10", "p50", "p90", "worst"), math.nan)
    p10, p50, p90 = np.percentile(ordered, (10, 50, 90))
    return {
        "mean": _mean(ordered),
        "std": float(ordered.std()),
        "p10": float(p10),
        "p50": float(p50),
        "p90": float(p90),
        "worst": _mean(ordered[: -(-ordered.size // 10)]),
    }


def _sum(values: np.ndarray) -> float | int:
    """Sums integers in int64 and everything else in float64."""
    values = np.asarray(values)
    return values.sum(dtype=np.int64 if values.dtype.kind in "iub" else np.float64)


def _quotient(total: float | int, count: int) -> float:
    return float(total / count) if count else math.nan


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else math.nan
