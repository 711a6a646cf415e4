"""Makes tasks whose targets are integers: one class an example, or the next token everywhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fljax.core.metrics import Metric, Sum
from fljax.core.task import Measured, Task
from fljax.core.values import COUNT, FINITE, Field, checked, wrong
from fljax.tasks.batches import only_real, per_example
from fljax.tasks.class_counts import (
    ACTUAL,
    BY_CLASS,
    DEFAULT,
    HITS,
    PREDICTED,
    ClassCounts,
    class_metrics,
)
from fljax.tasks.class_weights import PLAIN, Weighting, balanced_weights, weighting
from fljax.tasks.metric_names import chosen
from fljax.tasks.supervised import of_rows, supervised, wide

# Up to so many, metrics that are named exist for clients and groups.
MOST_CLASSES = 256


def classification(
    model: Any,
    num_classes: int,
    *,
    metrics: Sequence[str] | None = None,
    class_weights: Sequence[float] | str | None = None,
    focal_gamma: float = 0.0,
    frozen: Any = None,
    loss_fn: Callable[[jax.Array, jax.Array], jax.Array] | None = None,
    fast_layers: bool = True,
) -> Task:
    """Makes a task with one class per example.

    Args:
      model: A function (nnx.Rngs) -> nnx.Module, an nnx.Module (which then always starts from its
        current parameters), `from_linen(module, example_x)`, a pair of functions (init, apply), or
        a `Network`. It maps x[B, ...] to logits [B, num_classes].
      num_classes: Number of classes; labels are 0 ... num_classes - 1.
      metrics: Names of what it is judged by, the one that chooses first: docs/tasks.md lists them.
        What is named exists for each client and group as well; up to 256 classes, it takes 3 bytes
        for each class of each evaluated row. By default, metrics by class are of all rows alone.
      class_weights: A weight for each class, or "balanced", which counts the training labels of all
        clients; see `balanced_weights`. Losses are multiplied, and the mean divides by the number
        of rows as without.
      focal_gamma: Of the focal loss (Lin et al. 2017, arXiv:1708.02002), with `class_weights` as
        its alpha; 0 is the cross entropy.
      frozen: NNX filter of the parameters that are never trained.
      loss_fn: (logits [B, C], labels [B]) -> [B]; softmax cross entropy by default.
      fast_layers: Whether NNX convolutions are computed by `fljax_kernels.conv_general_dilated`,
        with the same parameters; see `from_nnx`.

    Returns:
      The task; y is int[B].

    Raises:
      ValueError: For arguments that are out of range, unknown or contradict each other.

    Example:
      >>> task = tasks.classification(models.mlp((4, 8, 3)), num_classes=3)
      >>> task
      Task('classification', 3 classes)
      >>> params, _, _ = task.init(jax.random.key(0))
    """
    num_classes = checked("num_classes", num_classes, Field(None, int, COUNT))
    by_example = metrics is not None and num_classes <= MOST_CLASSES
    return class_task(
        model,
        num_classes,
        "classification",
        of_rows,
        metrics=chosen(metrics, class_metrics(by_example), DEFAULT),
        weights=weighting(num_classes, class_weights, focal_gamma),
        frozen=frozen,
        loss_fn=loss_fn,
        fast_layers=fast_layers,
    )


def next_token(
    model: Any,
    num_classes: int,
    *,
    pad_id: int | None = 0,
    metrics: Sequence[str] | None = None,
    frozen: Any = None,
    fast_layers: bool = True,
) -> Task:
    """Makes a language-modelling task: the next token at every position.

    Args:
      model: As for `classification`; maps tokens [B, T] to logits [B, T, num_classes].
      num_classes: Size of the vocabulary.
      pad_id: Targets of this value do not count; None if all count.
      metrics: As for `classification`; those by class are of all rows alone.
      frozen: NNX filter of the parameters that are never trained.
      fast_layers: As for `classification`.

    Returns:
      The task; x and y are int[B, T], y being x moved on by one.

    Example:
      >>> tasks.next_token(models.char_lstm(90, hidden=16), 90)
      Task('next_token', 90 classes)
    """
    pad_id = checked("pad_id", pad_id, Field(0, int, FINITE, optional=True))

    def counted(batch):
        real = jnp.broadcast_to(batch["mask"][:, None], batch["y"].shape)
        return real if pad_id is None else real & (batch["y"] != pad_id)

    return class_task(
        model,
        num_classes,
        "next_token",
        counted,
        metrics=chosen(metrics, class_metrics(of_examples=False), DEFAULT),
        frozen=frozen,
        fast_layers=fast_layers,
    )


def softmax_cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Returns -log softmax(logits)[label], for logits [..., C] and integer labels [...].

    Example:
      >>> print(tasks.softmax_cross_entropy(jnp.array([[0.0, 0.0]]), jnp.array([1])))
      [0.6931472]
    """
    # a select, unlike a gather, has no scatter as its gradient
    log_probabilities = jax.nn.log_softmax(logits)
    return -jnp.sum(log_probabilities, where=_one_hot(logits, labels), axis=-1)


def class_task(
    model: Any,
    num_classes: int,
    kind: str,
    counted: Callable[[Mapping], jax.Array],
    *,
    metrics: Sequence[Metric],
    weights: Weighting = PLAIN,
    also: Callable[[jax.Array, jax.Array, jax.Array], dict[str, Sum]] | None = None,
    frozen: Any = None,
    loss_fn: Callable | None = None,
    fast_layers: bool = True,
) -> Task:
    """Makes a task of integer targets, of which those where `counted(batch)` is true count.

    In all metrics, the first of equal logits is ahead, and a target whose logits have no softmax (a
    NaN or an infinity among them, or nothing but -inf) is wrong.

    Args:
      model, num_classes, frozen, loss_fn, fast_layers: As for `classification`.
      kind: What it is called.
      counted: (batch) -> bool[B, ...].
      metrics: What it is judged by; sums that none of them reads are not measured.
      weights: Of the losses.
      also: (logits, labels, counts) -> further sums by example.
    """
    num_classes = checked("num_classes", num_classes, Field(None, int, COUNT))
    if not (loss_fn is None or callable(loss_fn)):
        raise wrong("loss_fn", loss_fn, "a function of logits and labels, or None")
    if loss_fn is not None and weights.focal_gamma:
        raise ValueError(
            f"focal_gamma = {weights.focal_gamma:g} is of the cross entropy, and loss_fn is given: "
            "leave one of them out."
        )
    needs_integers, loss_of = loss_fn is None, loss_fn or softmax_cross_entropy
    is_plain = weights.is_plain and needs_integers
    reads = {metric.name for metric in metrics}
    by_example = any(not each.of_counts for each in metrics if each.name in BY_CLASS)

    def scored(logits, batch, counts):
        """Returns losses, logits and labels, each per target; 0 where it does not count."""
        if getattr(logits, "shape", None) != (*counts.shape, num_classes):
            raise ValueError(_wrong_logits(logits, kind, counts.shape, num_classes))
        logits = only_real(counts, wide(logits))
        if needs_integers and not _holds_integers(batch["y"]):
            raise ValueError(
                f"y is {batch['y'].dtype}, and a {kind} task learns classes, 0, 1, 2, ...: give "
                "the data set y.astype(np.int32), or the task a loss_fn."
            )
        labels = jnp.where(counts, batch["y"], 0)
        losses = loss_of(logits, labels)
        if getattr(losses, "shape", None) != counts.shape:
            raise ValueError(
                f"loss_fn returns an array of shape {list(jnp.shape(losses))}, and "
                f"{list(counts.shape)} is wanted: one loss for each target and no mean over them, "
                "so that rows of padding can be left out."
            )
        if not weights.is_plain:
            losses = weights.of(losses, labels)
        return jnp.where(counts, losses, 0), logits, labels

    def measured(scores, counts):
        losses, logits, labels = scores
        sums, by_class = _measured(losses, logits, labels, counts)
        if "log_loss" in reads:
            plain = losses if is_plain else softmax_cross_entropy(logits, labels)
            sums["log_loss"] = Sum(per_example(jnp.where(counts, plain, 0)), sums["loss"].weight)
        if by_example:
            sums |= _by_example(logits, labels, counts)
        if also is not None:
            sums |= also(logits, labels, counts)
        if "top5" not in reads:
            del sums["top5"]
        return Measured(sums, by_class if any(each.of_counts for each in metrics) else None)

    task = supervised(
        model,
        kind=kind,
        metrics=metrics,
        scored=scored,
        measured=measured,
        counted=counted,
        num_classes=num_classes,
        frozen=frozen,
        fast_layers=fast_layers,
    )
    if not weights.waits:
        return task

    def fit(blocks):
        rows = sum(np.bincount(y, minlength=num_classes)[:num_classes] for y in blocks)
        return class_task(
            model, num_classes, kind, counted, metrics=metrics,
            weights=weights._replace(weights=balanced_weights(rows)), also=also, frozen=frozen,
            loss_fn=loss_fn, fast_layers=fast_layers,
        )  # fmt: skip

    return task._replace(fit=fit)


def _measured(
    losses: jax.Array, logits: jax.Array, labels: jax.Array, counts: jax.Array
) -> tuple[dict[str, Sum], ClassCounts]:
    """Returns (sums, counts by class) of a batch, whose arguments hold an entry for each target."""
    rank, predicted = _rank(logits, labels), _is_prediction(logits)
    correct = counts & predicted & (rank == 0)
    weight = per_example(counts.astype(jnp.int32))
    hits, in_top5 = (
        per_example(each.astype(jnp.int32)) for each in (correct, counts & predicted & (rank < 5))
    )
    sums = {
        "loss": Sum(per_example(losses), weight),
        "accuracy": Sum(hits, weight),
        "top5": Sum(in_top5, weight),
    }
    none = jnp.zeros(logits.shape[-1], jnp.int32)
    by_class = ClassCounts(
        hits=none.at[labels].add(correct.astype(jnp.int32)),
        actual=none.at[labels].add(counts.astype(jnp.int32)),
        predicted=none.at[logits.argmax(-1)].add((counts & predicted).astype(jnp.int32)),
    )
    return sums, by_class


def _by_example(logits: jax.Array, labels: jax.Array, counts: jax.Array) -> dict[str, Sum]:
    """Returns the counts by class of single examples, bool[B, C], for clients and groups."""
    actual = counts[:, None] & _one_hot(logits, labels)
    predicted = (counts & _is_prediction(logits))[:, None] & _one_hot(logits, logits.argmax(-1))
    weight = counts.astype(jnp.int32)
    each = {HITS: actual & predicted, ACTUAL: actual, PREDICTED: predicted}
    return {name: Sum(value, weight) for name, value in each.items()}


def _wrong_logits(logits: Any, kind: str, targets: tuple, num_classes: int) -> str:
    """Says what logits a model must return; both numbers where the width alone is wrong."""
    shape = getattr(logits, "shape", None)
    if shape is None:
        return f"The model returns {type(logits).__name__}; it must return an array of logits."
    if shape[:-1] == targets and shape:
        return (
            f"The model returns {shape[-1]} logits for {num_classes} classes. Give its last layer "
            f"{num_classes} outputs."
        )
    return (
        f"The model returns logits of shape {shape}; a {kind} task with {num_classes} classes and "
        f"targets {targets} needs {(*targets, num_classes)}."
    )


def _holds_integers(y: jax.Array) -> bool:
    return jnp.issubdtype(y.dtype, jnp.integer) or y.dtype == jnp.bool_


def _one_hot(logits: jax.Array, labels: jax.Array) -> jax.Array:
    return jnp.arange(logits.shape[-1]) == labels[..., None]


def _rank(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Returns how many classes are predicted before the label's; the first of equals is ahead."""
    own = jnp.sum(logits, where=_one_hot(logits, labels), axis=-1, keepdims=True)
    earlier = jnp.arange(logits.shape[-1]) < labels[..., None]
    return jnp.sum((logits > own) | ((logits == own) & earlier), axis=-1)


def _is_prediction(logits: jax.Array) -> jax.Array:
    """Returns whether logits have a softmax: none is NaN, and the largest is finite.

    A model that diverged has no prediction then, whatever argmax says; a class of logit -inf has
    the probability 0.
    """
    return jnp.isfinite(logits.max(-1))
