"""Makes tasks whose targets are integers: one class an example, or the next token everywhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from fljax.core.metrics import Sum
from fljax.core.task import Measured, Task
from fljax.core.values import COUNT, FINITE, Field, checked, wrong
from fljax.tasks.batches import only_real, per_example
from fljax.tasks.class_counts import CLASS_METRICS, ClassCounts
from fljax.tasks.supervised import of_rows, supervised, wide


def classification(
    model: Any,
    num_classes: int,
    *,
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
      frozen: NNX filter of the parameters that are never trained.
      loss_fn: (logits [B, C], labels [B]) -> [B]; softmax cross entropy by default.
      fast_layers: Whether NNX convolutions are computed by `fljax_kernels.conv_general_dilated`,
        with the same parameters; see `from_nnx`.

    Returns:
      The task; y is int[B].

    Example:
      >>> task = tasks.classification(models.mlp((4, 8, 3)), num_classes=3)
      >>> task
      Task('classification', 3 classes)
      >>> params, _, _ = task.init(jax.random.key(0))
    """

    return _task(model, num_classes, "classification", of_rows, frozen, loss_fn, fast_layers)


def next_token(
    model: Any,
    num_classes: int,
    *,
    pad_id: int | None = 0,
    frozen: Any = None,
    fast_layers: bool = True,
) -> Task:
    """Makes a language-modelling task: the next token at every position.

    Args:
      model: As for `classification`; maps tokens [B, T] to logits [B, T, num_classes].
      num_classes: Size of the vocabulary.
      pad_id: Targets of this value do not count; None if all count.
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

    return _task(model, num_classes, "next_token", counted, frozen, None, fast_layers)


def softmax_cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Returns -log softmax(logits)[label], for logits [..., C] and integer labels [...].

    Example:
      >>> print(tasks.softmax_cross_entropy(jnp.array([[0.0, 0.0]]), jnp.array([1])))
      [0.6931472]
    """
    # a select, unlike a gather, has no scatter as its gradient
    log_probabilities = jax.nn.log_softmax(logits)
    return -jnp.sum(log_probabilities, where=_one_hot(logits, labels), axis=-1)


def _task(
    model: Any,
    num_classes: int,
    kind: str,
    counted: Callable[[Mapping], jax.Array],
    frozen: Any,
    loss_fn: Callable | None,
    fast_layers: bool,
) -> Task:
    """Makes a task of integer targets, of which those where `counted(batch)` is true count.

    In all metrics, the first of equal logits is ahead, and a target whose logits have no softmax (a
    NaN or an infinity among them, or nothing but -inf) is wrong.
    """
    num_classes = checked("num_classes", num_classes, Field(None, int, COUNT))
    if not (loss_fn is None or callable(loss_fn)):
        raise wrong("loss_fn", loss_fn, "a function of logits and labels, or None")
    needs_integers, loss_fn = loss_fn is None, loss_fn or softmax_cross_entropy

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
        losses = loss_fn(logits, labels)
        if getattr(losses, "shape", None) != counts.shape:
            raise ValueError(
                f"loss_fn returns an array of shape {list(jnp.shape(losses))}, and "
                f"{list(counts.shape)} is wanted: one loss for each target and no mean over them, "
                "so that rows of padding can be left out."
            )
        return jnp.where(counts, losses, 0), logits, labels

    return supervised(
        model,
        kind=kind,
        metrics=CLASS_METRICS,
        scored=scored,
        measured=_measured,
        counted=counted,
        num_classes=num_classes,
        frozen=frozen,
        fast_layers=fast_layers,
    )


def _measured(scores: tuple[jax.Array, ...], counts: jax.Array) -> Measured:
    """Returns what is measured of a batch, whose arguments hold an entry for each target."""
    losses, logits, labels = scores
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
    return Measured(sums, by_class)


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
