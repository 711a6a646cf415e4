"""Makes a task of a model and a loss of its outputs: what tasks of every kind of target share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from fljax.core.metrics import Metric
from fljax.core.network import as_network
from fljax.core.task import Measured, Task
from fljax.tasks.batches import applied, per_example

Batch = Mapping[str, Any]


def of_rows(batch: Batch) -> jax.Array:
    """Returns bool[B], the rows that are real: the targets that count where a row has one."""
    return batch["mask"]


def supervised(
    model: Any,
    *,
    kind: str,
    metrics: Sequence[Metric],
    scored: Callable[[Any, Batch, jax.Array], tuple],
    measured: Callable[[tuple, jax.Array], Measured],
    counted: Callable[[Batch], jax.Array] = of_rows,
    num_classes: int | None = None,
    frozen: Any = None,
    fast_layers: bool = True,
) -> Task:
    """Makes a task of a model whose outputs are compared with targets.

    Args:
      model, frozen, fast_layers: As for `fljax.tasks.classification`.
      kind: What the task is called.
      metrics: What it is judged by.
      scored: (outputs, batch, counts) -> (losses, ...): a loss for each target, in the shape of
        `counts` and 0 where a target does not count, and whatever `measured` reads.
      measured: (what `scored` returned, counts) -> Measured.
      counted: (batch) -> bool[B, ...], which targets count; none of a padding row. By default a row
        has one target.
      num_classes: Of the targets, or None.

    Returns:
      The task; the loss of a batch is the mean over the targets that count.

    Example:
      >>> loss = tasks.Metric("loss", "lower", label="Cubed error")
      >>> scored = lambda out, batch, counts: (counts * jnp.abs(out[:, 0] - batch["y"]) ** 3,)
      >>> measured = lambda scores, counts: tasks.Measured({"loss": (scores[0], counts)})
      >>> options = {"kind": "cubes", "metrics": [loss], "scored": scored, "measured": measured}
      >>> tasks.supervised(models.mlp((4, 1)), **options)
      Task('cubes')
    """
    network = as_network(model, frozen, fast_layers)

    def forward(params, frozen, model_state, batch, key, train):
        """Returns what `scored` does, which targets count, and model_state'."""
        mask, counts = jnp.asarray(batch["mask"]), jnp.asarray(counted(batch))
        outputs, model_state = applied(
            network, params, frozen, model_state, batch["x"], key, train, mask
        )
        return scored(outputs, batch, counts), counts, model_state

    def loss(params, frozen, model_state, batch, key, train):
        scores, counts, model_state = forward(params, frozen, model_state, batch, key, train)
        return (per_example(scores[0]), per_example(counts.astype(jnp.int32))), model_state

    def measure(params, frozen, model_state, batch):
        scores, counts, _ = forward(params, frozen, model_state, batch, None, False)
        return measured(scores, counts)

    def judge(outputs, batch):
        counts = jnp.asarray(counted(batch))
        return measured(scored(outputs, batch, counts), counts)

    def apply(params, frozen, model_state, x):
        return network.apply(params, frozen, model_state, x, None, False, None)[0]

    return Task(
        init=network.init,
        loss=loss,
        measure=measure,
        metrics=tuple(metrics),
        kind=kind,
        num_classes=num_classes,
        needs_full_batches=network.needs_full_batches,
        apply=apply,
        judge=judge,
        replaced_layers=network.replaced_layers,
    )


def wide(values: jax.Array) -> jax.Array:
    """Returns numbers as floats of 32 bits at least, in which losses are computed."""
    return values.astype(jnp.promote_types(values.dtype, jnp.float32))


def floats(outputs: Any, shape: tuple[int, ...], what: str) -> jax.Array:
    """Returns a model's outputs in that shape, in float32 at least.

    Args:
      outputs: What the model returned.
      shape: What is wanted; one that differs in axes of length 1 alone will do.
      what: The outputs in words, for errors.

    Raises:
      ValueError: For another shape.
    """
    found = getattr(outputs, "shape", None)
    if found is None or _without_ones(found) != _without_ones(shape):
        returns = type(outputs).__name__ if found is None else f"an array of shape {list(found)}"
        raise ValueError(f"The model returns {returns}; {list(shape)} is wanted: {what}.")
    return wide(outputs).reshape(shape)


def _without_ones(shape: tuple[int, ...]) -> list[int]:
    return [size for size in shape if size > 1]
