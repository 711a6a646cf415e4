"""Makes tasks in which any number of labels apply to an example."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fljax.core.metrics import LOSS, Sum
from fljax.core.task import Measured, Task
from fljax.core.values import COUNT, Field, checked
from fljax.tasks.batches import only_real, per_example
from fljax.tasks.class_counts import ACTUAL, HITS, LOG_LOSS, PREDICTED, ClassCounts
from fljax.tasks.class_weights import ALPHA, GAMMA, checked_weights, focal
from fljax.tasks.integer_targets import MOST_CLASSES
from fljax.tasks.label_metrics import (
    DEFAULT,
    EXACT_AREAS,
    HISTOGRAM_AREAS,
    OF_ROW,
    ROW_METRICS,
    LabelCounts,
    label_metrics,
    of_samples,
)
from fljax.tasks.metric_names import chosen
from fljax.tasks.ranked import LABEL, SCORE, bin_of, num_bins
from fljax.tasks.supervised import supervised, wide


def multi_label(
    model: Any,
    num_labels: int,
    *,
    metrics: Sequence[str] | None = None,
    auc: str = "exact",
    positive_weights: Sequence[float] | str | None = None,
    focal_gamma: float = 0.0,
    focal_alpha: float | None = None,
    frozen: Any = None,
    fast_layers: bool = True,
) -> Task:
    """Makes a task in which any number of labels apply to an example.

    The loss is the sigmoid cross entropy, the mean over rows and labels. A label is predicted where
    its probability is above one half.

    Args:
      model: As for `classification`; it maps x[B, ...] to logits [B, num_labels].
      num_labels: L.
      metrics: Names of what it is judged by, the one that chooses first: docs/tasks.md lists them.
        Up to 256 labels, those by label exist for clients and groups.
      auc: "exact", of the ranks of all scores, which are kept: 5 bytes for each label of each
        evaluated row; or "histogram(bins)", of scores in bins of probability, counted over all rows
        alone, with `auc_macro_error` and `auc_micro_error` the most that these areas are off.
      positive_weights: L factors of the losses where a label applies, or "balanced": the training
        rows without a label ÷ those with it.
      focal_gamma: Of the focal loss (Lin et al. 2017, arXiv:1708.02002); 0 is the cross entropy.
      focal_alpha: Factor of losses where a label applies, and 1 - alpha that of others.
      frozen, fast_layers: As for `classification`.

    Returns:
      The task; y is [B, L] of 0 and 1, of any type, or [B] of one label.

    Raises:
      ValueError: For arguments that are out of range, unknown or contradict each other.

    Example:
      >>> task = tasks.multi_label(models.mlp((4, 8, 3)), 3)
      >>> [metric.name for metric in task.metrics][:4]
      ['f1_micro', 'f1_macro', 'auc_macro', 'auc_micro']
    """
    num_labels = checked("num_labels", num_labels, Field(None, int, COUNT))
    weights = checked_weights("positive_weights", positive_weights, num_labels)
    gamma = checked("focal_gamma", focal_gamma, GAMMA)
    alpha = checked("focal_alpha", focal_alpha, ALPHA)
    bins = num_bins(auc)
    areas = EXACT_AREAS if bins is None else HISTOGRAM_AREAS
    by_example = num_labels <= MOST_CLASSES
    labels = label_metrics(by_example)
    known = [*labels, *areas, *ROW_METRICS, LOG_LOSS, LOSS]
    default = ["f1_micro", "f1_macro", *(each.name for each in areas), *DEFAULT]
    judged_by = chosen(metrics, known, default)
    reads = {metric.name for metric in judged_by}
    reads_labels = any(metric in labels for metric in judged_by)
    ranks = any(metric in areas for metric in judged_by)

    def counted(batch):
        return jnp.broadcast_to(batch["mask"][:, None], (len(batch["mask"]), num_labels))

    def scored(logits, batch, counts):
        y = batch["y"]
        if num_labels == 1 and getattr(y, "ndim", 0) == 1:
            y = y[:, None]
        for what, found in (("y is", y), ("The model returns logits", logits)):
            if getattr(found, "shape", None) != counts.shape:
                raise ValueError(
                    f"{what} of shape {list(getattr(found, 'shape', []))}, and a multi_label task "
                    f"with {num_labels} labels needs {list(counts.shape)}."
                )
        if isinstance(weights, str):
            raise ValueError(
                "positive_weights = 'balanced' waits for the labels, which runs count before they "
                "begin. Elsewhere give numbers."
            )
        logits, applies = only_real(counts, wide(logits)), counts & (y > 0)
        plain = sigmoid_cross_entropy(logits, applies)
        losses = focal(plain, gamma)
        if weights is not None:
            losses = losses * jnp.where(applies, jnp.asarray(weights, losses.dtype), 1)
        if alpha is not None:
            losses = losses * jnp.where(applies, alpha, 1 - alpha)
        return jnp.where(counts, losses, 0), logits, applies, jnp.where(counts, plain, 0)

    def measured(scores, counts):
        losses, logits, applies, plain = scores
        rows, weight = counts[:, 0].astype(jnp.int32), per_example(counts.astype(jnp.int32))
        sums = {"loss": Sum(per_example(losses), weight)}
        if "log_loss" in reads:
            sums["log_loss"] = Sum(per_example(plain), weight)
        predicted = counts & (logits > 0)
        sums |= {name: OF_ROW[name](logits, applies, counts) for name in reads & OF_ROW.keys()}
        if "f1_samples" in reads:
            sums |= of_samples(applies, predicted, rows)
        by_label = {HITS: applies & predicted, ACTUAL: applies, PREDICTED: predicted}
        totals, histogram, unranked = None, None, None
        if reads_labels and by_example:
            sums |= {name: Sum(value, rows) for name, value in by_label.items()}
        elif reads_labels:
            totals = ClassCounts(*(each.sum(0, dtype=jnp.int32) for each in by_label.values()))
        if ranks and bins is None:
            sums |= {SCORE: Sum(logits, rows), LABEL: Sum(applies, rows)}
        elif ranks:
            places = jnp.arange(num_labels), applies.astype(jnp.int32), bin_of(logits, bins)
            none = jnp.zeros((num_labels, 2, bins), jnp.int32)
            histogram = none.at[places].add(counts.astype(jnp.int32))
            unranked = jnp.isnan(logits).sum(dtype=jnp.int32)
        has_counts = totals is not None or histogram is not None
        return Measured(sums, LabelCounts(totals, histogram, unranked) if has_counts else None)

    task = supervised(
        model,
        kind="multi_label",
        metrics=judged_by,
        scored=scored,
        measured=measured,
        counted=counted,
        frozen=frozen,
        fast_layers=fast_layers,
    )._replace(problem=_problem)
    if not isinstance(weights, str):
        return task

    def fit(blocks):
        rows, applies = 0, np.zeros(num_labels)
        for y in blocks:
            rows, applies = rows + len(y), applies + (np.asarray(y) > 0).sum(0)
        ratios = np.where(applies > 0, (rows - applies) / np.maximum(applies, 1), 1.0)
        return multi_label(
            model, num_labels, metrics=metrics, auc=auc, positive_weights=ratios,
            focal_gamma=gamma, focal_alpha=alpha, frozen=frozen, fast_layers=fast_layers,
        )  # fmt: skip

    return task._replace(fit=fit)


def sigmoid_cross_entropy(logits: jax.Array, applies: jax.Array) -> jax.Array:
    """Returns -log of the probability that logits [...] give to labels that apply or do not.

    Example:
      >>> from fljax.tasks.multi_label import sigmoid_cross_entropy
      >>> print(sigmoid_cross_entropy(jnp.array([0.0]), jnp.array([True])))
      [0.6931472]
    """
    return jax.nn.softplus(jnp.where(applies, -logits, logits))


def _problem(y: Any, rows: np.ndarray) -> str:
    """Says which target is neither 0 nor 1."""
    if not hasattr(y, "shape"):
        return "y is several arrays, and a multi_label task learns one, [rows, labels]."
    y = np.asarray(y)
    wrong = np.argwhere((y != 0) & (y != 1))
    if not len(wrong):
        return ""
    row, *label = wrong[0].tolist()
    where = f"y, row {rows[row]}, label {label[0]}," if label else f"y, row {rows[row]},"
    return f"{where} is {y[tuple(wrong[0])]}: a label applies, 1, or does not, 0."
