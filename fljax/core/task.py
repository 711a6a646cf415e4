"""A task: a model together with its loss and its metrics, as a record of pure functions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax

from fljax.core.metrics import Metric, Sum

__all__ = [
    "Measured",
    "Task",
]

PyTree = Any


class Measured(NamedTuple):
    """The measurements of one batch; sums and counts add up over batches.

    Attributes:
      sums: {name: (value, weight)} of each example: value is [B] or, for a histogram, [B, ...],
        weight is [B]. "loss" is among them. Padding rows are cut off, whatever they hold.
      counts: Pytree of integer arrays that are added over all batches, for metrics of what is too
        large to keep for each example: hits by class, say. Padding rows must not count. None where
        no metric reads counts.

    Example:
      >>> task = tasks.classification(models.softmax_regression(4, 3), num_classes=3)
      >>> batch = {'x': jnp.ones((2, 4)), 'y': jnp.array([0, 2]), 'mask': jnp.array([True, True])}
      >>> sums, counts = task.measure(*task.init(jax.random.key(0)), batch)
      >>> sums['accuracy'].value.tolist(), counts.actual.tolist()
      ([1, 0], [1, 0, 1])
    """

    sums: Mapping[str, Sum | tuple[jax.Array, jax.Array]]
    counts: PyTree = None


class Task(NamedTuple):
    """A task: what clients learn, and how models are judged.

    A batch is {"x", "y", "mask"}: inputs and targets, arrays or pytrees of arrays, and bool[B],
    false in padding rows.

    Attributes:
      init: (key) -> (params, frozen, model_state): pytrees of trained parameters, of constants that
        are never trained, and of statistics that training updates (BatchNorm's).
      loss: (params, frozen, model_state, batch, key, train) -> ((value, weight), model_state').
        `value` is float[B], each example's summed loss; `weight` is int32[B], the number of its
        targets; both are 0 in padding rows. The batch's loss is sum(value) / max(sum(weight), 1).
      measure: (params, frozen, model_state, batch) -> Measured, in evaluation mode.
      metrics: What follows from it, a `Metric` each; "loss" is among them. The first one chooses
        the best round, the best model and the best trial of a sweep, and is what targets, patience
        and the spread over clients are about.
      kind: "classification", "next_token", or a name of one's own.
      num_classes: Number of classes, or size of the vocabulary; None for targets without classes.
      needs_full_batches: Whether a batch with padding rows would spoil `model_state`.
      apply: (params, frozen, model_state, x) -> the model's outputs in evaluation mode, for
        predictions after training; None where there are none.
      judge: (outputs, batch) -> Measured, of outputs such as `apply` returns, however they were
        made: for clients whose own predictors are more than a model. None where `measure` cannot
        be told so.
      replaced_layers: Names of the model's layers whose place a faster one took.
      fit: (blocks of y) -> the task, of one that first takes something from the targets of all
        training rows, such as weights that balance classes; it comes without `fit`. A task made of
        such a one has a `fit` that fits that one first. None where nothing is needed. Refused where
        clients are promised privacy.
      problem: (y of some rows, in NumPy, their row numbers) -> what is wrong with these targets, a
        sentence, or "". Runs ask it before the first round; None where shapes and types say all.
      compares_examples: Whether the loss of an example depends on others of its batch, which it is
        compared or mixed with, so that there is no loss of single examples, which some mechanisms
        of privacy need.

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
    measure: Callable[..., Measured]
    metrics: tuple[Metric, ...]
    kind: str
    num_classes: int | None = None
    needs_full_batches: bool = False
    apply: Callable[..., PyTree] | None = None
    judge: Callable[..., Measured] | None = None
    replaced_layers: tuple[str, ...] = ()
    fit: Callable[[Iterable[PyTree]], Task] | None = None
    problem: Callable[[PyTree, Any], str] | None = None
    compares_examples: bool = False

    def __repr__(self) -> str:
        classes = "" if self.num_classes is None else f", {self.num_classes} classes"
        return f"Task({self.kind!r}{classes})"
