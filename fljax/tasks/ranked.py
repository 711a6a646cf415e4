"""Makes tasks of two classes that are judged by how examples are ranked: the area under the ROC."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fljax.core.metrics import Metric, Sum
from fljax.core.task import Task
from fljax.core.values import Field, Interval, checked
from fljax.tasks.integer_targets import classification


def binary(
    model: Any,
    num_classes: int = 2,
    *,
    frozen: Any = None,
    loss_fn: Callable[[jax.Array, jax.Array], jax.Array] | None = None,
    fast_layers: bool = True,
) -> Task:
    """Makes a classification task of two classes that is judged by AUC first.

    Args:
      model: As for `classification`; it has two logits.
      num_classes: 2.
      frozen, loss_fn, fast_layers: As for `classification`.

    Returns:
      The task; the score of an example is the logit of class 1 minus that of class 0.

    Raises:
      ValueError: For another number of classes.

    Example:
      >>> task = tasks.binary(models.softmax_regression(13, 2))
      >>> [metric.name for metric in task.metrics][:2]
      ['auc', 'accuracy']
    """
    num_classes = checked("num_classes", num_classes, Field(2, int, Interval(2, 2)))
    task = classification(
        model, num_classes, frozen=frozen, loss_fn=loss_fn, fast_layers=fast_layers
    )

    def ranked(measured, logits, batch):
        weight, logits = measured.sums["loss"].weight, logits.astype(jnp.float32)
        scores = {
            SCORE: Sum(logits[:, 1] - logits[:, 0], weight),
            LABEL: Sum(batch["y"].astype(jnp.int32), weight),
        }
        return measured._replace(sums={**measured.sums, **scores})

    def measure(params, frozen, model_state, batch):
        measured = task.measure(params, frozen, model_state, batch)
        return ranked(measured, task.apply(params, frozen, model_state, batch["x"]), batch)

    def judge(outputs, batch):
        return ranked(task.judge(outputs, batch), outputs, batch)

    return task._replace(measure=measure, judge=judge, metrics=(AUC, *task.metrics))


def auc(scores: np.ndarray, labels: np.ndarray) -> float:
    """Returns the probability that a positive example has a higher score than a negative one.

    It is exact: the statistic of Mann and Whitney (1947) from ranks, in which equal scores count
    one half.

    Args:
      scores: float[examples].
      labels: [examples], 1 of positive examples and 0 of negative ones.

    Returns:
      A number from 0 to 1; NaN where there is no example of a class, or a score is NaN.

    Example:
      >>> tasks.auc(np.array([0.1, 0.4, 0.35, 0.8]), np.array([0, 0, 1, 1]))
      0.75
    """
    positive = np.asarray(labels) > 0
    positives, negatives = int(positive.sum()), int((~positive).sum())
    if not positives or not negatives or np.isnan(scores).any():
        return float("nan")
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    # twice the mean rank of those with one score, a whole number
    ranks = (2 * counts.cumsum() - counts + 1)[place]
    twice = int(ranks[positive].sum()) - positives * (positives + 1)
    return twice / (2 * positives * negatives)


SCORE, LABEL = "score", "label"


def _auc_of(sums: Mapping[str, Sum]) -> float:
    counts = sums[SCORE].weight > 0
    return auc(sums[SCORE].value[counts], sums[LABEL].value[counts])


AUC = Metric("auc", value=_auc_of, of_examples=True, label="AUC")
