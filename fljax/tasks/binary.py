"""Makes tasks of two classes, judged by how examples are ranked and what is taken for positive."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from fljax.core.metrics import Metric, Sum
from fljax.core.task import Task
from fljax.core.values import Field, Interval, checked
from fljax.tasks.class_counts import DEFAULT, POSITIVE, by_class, class_metrics
from fljax.tasks.class_weights import weighting
from fljax.tasks.integer_targets import class_task
from fljax.tasks.metric_names import chosen
from fljax.tasks.ranked import AUC, HISTOGRAM, HISTOGRAM_AUC, LABEL, SCORE, histograms, num_bins
from fljax.tasks.supervised import of_rows


def binary(
    model: Any,
    num_classes: int = 2,
    *,
    metrics: Sequence[str] | None = None,
    auc: str = "exact",
    class_weights: Sequence[float] | str | None = None,
    focal_gamma: float = 0.0,
    focal_alpha: float | None = None,
    frozen: Any = None,
    loss_fn: Callable[[jax.Array, jax.Array], jax.Array] | None = None,
    fast_layers: bool = True,
) -> Task:
    """Makes a classification task of two classes that is judged by AUC first.

    All its metrics exist for clients and groups too. Class 1 is the positive one, of which
    precision, recall, F1 and specificity are.

    Args:
      model: As for `classification`; it has two logits.
      num_classes: 2.
      metrics: Names of what it is judged by, the one that chooses first.
      auc: "exact", of the ranks of all scores; or "histogram(bins)", of scores in bins of
        probability: sums that add up, 2 x bins bytes an example, with `auc_error` the most that the
        area is off.
      class_weights, focal_gamma: As for `classification`.
      focal_alpha: The weight of class 1, and 1 - alpha that of class 0 (Lin et al. 2017).
      frozen, loss_fn, fast_layers: As for `classification`.

    Returns:
      The task; the score of an example is the logit of class 1 minus that of class 0.

    Raises:
      ValueError: For another number of classes, or arguments that are wrong.

    Example:
      >>> task = tasks.binary(models.softmax_regression(13, 2))
      >>> [metric.name for metric in task.metrics][:3]
      ['auc', 'accuracy', 'precision']
    """
    num_classes = checked("num_classes", num_classes, Field(2, int, Interval(2, 2)))
    bins = num_bins(auc)
    areas: list[Metric] = [AUC] if bins is None else HISTOGRAM_AUC
    known = [*areas, *by_class(True, POSITIVE), *class_metrics(of_examples=True)]
    default = [*(each.name for each in areas), "accuracy", *POSITIVE, *DEFAULT]
    judged_by = chosen(metrics, known, default)
    ranks = any(metric in areas for metric in judged_by)

    def ranked(logits, labels, counts):
        weight, scores = counts.astype(jnp.int32), logits[:, 1] - logits[:, 0]
        if bins is not None:
            return {HISTOGRAM: Sum(histograms(scores, labels, bins), weight)}
        return {SCORE: Sum(scores, weight), LABEL: Sum(labels.astype(jnp.int32), weight)}

    return class_task(
        model,
        num_classes,
        "classification",
        of_rows,
        metrics=judged_by,
        weights=weighting(num_classes, class_weights, focal_gamma, focal_alpha),
        also=ranked if ranks else None,
        frozen=frozen,
        loss_fn=loss_fn,
        fast_layers=fast_layers,
    )
