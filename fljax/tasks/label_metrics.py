"""Measures which labels were predicted of those that apply, and how scores rank them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fljax.core.metrics import Metric, Sum
from fljax.tasks.batches import per_example
from fljax.tasks.class_counts import (
    ClassCounts,
    by_class,
    f1s,
    precisions,
    recalls,
    weighted,
)
from fljax.tasks.ranked import LABEL, SCORE, auc, auc_of_histograms, histogram_metrics

# Labels of the highest scores that `recall_at_5` looks at.
_AT = 5


class LabelCounts(NamedTuple):
    """Counts over all rows.

    Attributes:
      labels: Of each label, int32[L] each; None where clients have them too.
      scores: int32[L, 2, bins] histograms of scores where a label does not apply and where it does;
        None without.
      unranked: How many scores are NaN.
    """

    labels: ClassCounts | None = None
    scores: Any = None
    unranked: Any = None


def _right(logits: jax.Array, applies: jax.Array, counts: jax.Array) -> jax.Array:
    """Returns bool[B, L]: which labels were predicted where they apply, or not where not."""
    return counts & ((logits > 0) == applies) & ~jnp.isnan(logits)


def _subset_accuracy(logits, applies, counts):
    rows = counts[:, 0].astype(jnp.int32)
    return Sum((_right(logits, applies, counts).all(1)).astype(jnp.int32), rows)


def _label_accuracy(logits, applies, counts):
    right = _right(logits, applies, counts)
    return Sum(per_example(right.astype(jnp.int32)), per_example(counts.astype(jnp.int32)))


def _recall_at_5(logits, applies, counts):
    """Counts the labels that apply among those of the highest scores; the first of equals first.

    A score that is NaN is among none: `top_k` would take it for the highest.
    """
    scored = ~jnp.isnan(logits)
    _, best = jax.lax.top_k(jnp.where(scored, logits, -jnp.inf), min(_AT, logits.shape[1]))
    found = jnp.take_along_axis(applies & scored, best, 1).sum(1, dtype=jnp.int32)
    return Sum(found, applies.sum(1, dtype=jnp.int32))


def of_samples(applies: jax.Array, predicted: jax.Array, rows: jax.Array) -> dict[str, Sum]:
    """Returns the labels of each row that were hit, and those that apply or were predicted."""
    hits = per_example((applies & predicted).astype(jnp.int32))
    both = per_example(applies.astype(jnp.int32)) + per_example(predicted.astype(jnp.int32))
    return {SAMPLE_HITS: Sum(hits, rows), SAMPLE_SIZE: Sum(both, rows)}


def _f1_samples(sums: Mapping[str, Sum]) -> float:
    """Returns the mean F1 of rows, in float64 of whole numbers; 0 of a row without labels."""
    rows = np.asarray(sums[SAMPLE_SIZE].weight) > 0
    hits, size = (np.asarray(sums[name].value)[rows] for name in (SAMPLE_HITS, SAMPLE_SIZE))
    return (2 * hits / np.maximum(size, 1)).mean() if rows.any() else np.nan


SAMPLE_HITS, SAMPLE_SIZE = "sample_hits", "sample_size"


# name -> (logits, which labels apply, which count) -> the sum of each row
OF_ROW: dict[str, Callable[..., Sum]] = {
    "subset_accuracy": _subset_accuracy,
    "label_accuracy": _label_accuracy,
    "recall_at_5": _recall_at_5,
}
ROW_METRICS = (
    Metric("subset_accuracy", label="Subset accuracy"),
    Metric("label_accuracy", label="Label accuracy"),
    Metric("f1_samples", value=_f1_samples, of_examples=True, label="F1 (samples)"),
    Metric("recall_at_5", label="Recall at 5"),
)
DEFAULT = (
    "precision_micro",
    "recall_micro",
    "precision_macro",
    "recall_macro",
    "subset_accuracy",
    "label_accuracy",
    "loss",
)


def _of_all(values: Callable[[ClassCounts], np.ndarray]) -> Callable[[ClassCounts], Any]:
    """Returns the value of all labels together, as if they were one."""

    def value(counts):
        return values(ClassCounts(*(each.sum(-1, keepdims=True) for each in counts)))[..., 0]

    return value


def _over_labels(values: Callable[[ClassCounts], np.ndarray]) -> Callable[[ClassCounts], Any]:
    """Returns the mean over all labels, those that never apply included."""
    return lambda counts: values(counts).mean(-1)


def label_metrics(of_examples: bool) -> list[Metric]:
    """Returns precision, recall and F1 over labels; see `fljax.tasks.class_counts.by_class`."""
    each = {
        "precision": ("Precision", precisions),
        "recall": ("Recall", recalls),
        "f1": ("F1", f1s),
    }
    means = {"micro": _of_all, "macro": _over_labels, "weighted": weighted}
    values = {
        f"{name}_{mean}": (f"{label} ({mean})", over(of))
        for mean, over in means.items()
        for name, (label, of) in each.items()
    }
    if of_examples:
        return by_class(True, values)
    return [
        metric._replace(value=lambda counts, value=metric.value: value(counts.labels))
        for metric in by_class(False, values)
    ]


def _macro_auc(sums: Mapping[str, Sum]) -> float:
    """Returns the mean area over the labels that have one."""
    rows = np.asarray(sums[SCORE].weight) > 0
    scores, labels = (np.asarray(sums[name].value)[rows] for name in (SCORE, LABEL))
    if np.isnan(scores).any():
        return float("nan")
    areas = np.array([auc(*columns) for columns in zip(scores.T, labels.T, strict=True)])
    found = areas[~np.isnan(areas)]
    return float(found.mean()) if found.size else float("nan")


def _micro_auc(sums: Mapping[str, Sum]) -> float:
    rows = np.asarray(sums[SCORE].weight) > 0
    return auc(*(np.asarray(sums[name].value)[rows].ravel() for name in (SCORE, LABEL)))


EXACT_AREAS = [
    Metric("auc_macro", value=_macro_auc, of_examples=True, label="AUC (macro)"),
    Metric("auc_micro", value=_micro_auc, of_examples=True, label="AUC (micro)"),
]


def _of_histograms() -> list[Metric]:
    def macro(counts):
        areas, bounds = auc_of_histograms(counts.scores)
        found = ~np.isnan(areas)
        means = (areas[found].mean(), bounds[found].mean()) if found.any() else (np.nan, np.nan)
        return _ranked(counts, means)

    def micro(counts):
        totals = np.asarray(counts.scores, np.int64).sum(0)
        return _ranked(counts, auc_of_histograms(totals))

    both = (("auc_macro", "AUC (macro)", macro), ("auc_micro", "AUC (micro)", micro))
    return [metric for each in both for metric in histogram_metrics(*each, of_counts=True)]


def _ranked(counts: LabelCounts, found: tuple) -> tuple:
    return found if counts.unranked == 0 else (np.nan, np.nan)


HISTOGRAM_AREAS = _of_histograms()
