"""A task: a model together with its loss and its exact metrics, as a record of pure functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from fljax.core.metrics import ClassCounts

PyTree = Any


class Metrics(NamedTuple):
    """Sums that add up over batches; padding rows count nothing.

    Attributes:
      per_example: {"loss": float[B], "weight": int32[B], "correct": int32[B], "correct_top5":
        int32[B]}, sums over each example's targets.
      confusion: int32[C, C] targets by actual (row) and predicted class (column), or
        `fljax.core.metrics.ClassCounts` of int32[C] where C exceeds `MAX_CONFUSION_CLASSES`.
      unpredicted: int32[C] targets by actual class for which the model predicts nothing, which are
        in `confusion` nowhere and wrong in all metrics; None if there are none.

    Example:
      >>> task = tasks.classification(models.softmax_regression(4, 3), num_classes=3)
      >>> batch = {'x': jnp.ones((2, 4)), 'y': jnp.array([0, 2]), 'mask': jnp.array([True, True])}
      >>> metrics = task.metrics(*task.init(jax.random.key(0)), batch)
      >>> metrics.per_example['correct'].tolist()
      [1, 0]
    """

    per_example: dict[str, jax.Array]
    confusion: jax.Array | ClassCounts
    unpredicted: jax.Array | None = None


class Task(NamedTuple):
    """What clients learn.

    A batch is {"x", "y", "mask"}: inputs, targets, and bool[B], false in padding rows.

    Attributes:
      init: (key) -> (params, frozen, model_state): pytrees of trained parameters, of constants that
        are never trained, and of statistics that training updates (BatchNorm's).
      loss: (params, frozen, model_state, batch, key, train) -> ((value, weight), model_state').
        `value` is float[B], each example's summed loss; `weight` is int32[B], the number of its
        targets; both are 0 in padding rows. The batch's loss is sum(value) / max(sum(weight), 1).
      metrics: (params, frozen, model_state, batch) -> Metrics, in evaluation mode. In those of
        `classification` and `next_token`, the first of equal logits is ahead, and a target whose
        logits have no softmax (a NaN or an infinity among them, or nothing but -inf) is wrong in
        all of them: accuracy, top 5, precision, recall and F1.
      num_classes: Number of classes, or size of the vocabulary.
      kind: "classification", "next_token", or a name of one's own.
      needs_full_batches: Whether a batch with padding rows would spoil `model_state`.
      apply: (params, frozen, model_state, x) -> the model's outputs in evaluation mode, for
        predictions after training; None where there are none.

    Example:
      >>> task = tasks.classification(models.softmax_regression(4, 3), num_classes=3)
      >>> params, frozen, model_state = task.init(jax.random.key(0))
      >>> batch = {'x': jnp.ones((2, 4)), 'y': jnp.array([0, 2]), 'mask': jnp.array([True, True])}
      >>> (losses, weights), _ = task.loss(params, frozen, model_state, batch, None, False)
      >>> print(jnp.round(losses, 2), weights)
      [1.1 1.1] [1 1]
    """

    init: Callable[[jax.Array], tuple[PyTree, PyTree, PyTree]]
    loss: Callable[..., tuple[tuple[jax.Array, jax.Array], PyTree]]
    metrics: Callable[..., Metrics]
    num_classes: int
    kind: str
    needs_full_batches: bool = False
    apply: Callable[..., PyTree] | None = None

    def __repr__(self) -> str:
        return f"Task({self.kind!r}, {self.num_classes} classes)"
