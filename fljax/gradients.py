"""The gradient estimator: a task bound to its frozen constants, as algorithms see it.

The estimator is a slot: `plain` differentiates the mean loss of a batch; estimators that clip per
example or split the batch have the same signature.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fljax.tasks import Task

PyTree = Any


class LossSums(NamedTuple):
    """Summed loss of a batch and the number of its targets (real rows, or tokens)."""

    loss: jax.Array
    weight: jax.Array


class LocalTask(NamedTuple):
    """A task inside the round program.

    Attributes:
      gradient: (params, model_state, batch, key) -> (gradient of the batch's mean loss, LossSums,
        model_state').
      loss: (params, model_state, batch, key, train) -> (LossSums, model_state').
      metrics: (params, model_state, batch) -> fljax.tasks.Metrics.
    """

    gradient: Callable[..., tuple[PyTree, LossSums, PyTree]]
    loss: Callable[..., tuple[LossSums, PyTree]]
    metrics: Callable[..., Any]


def plain(loss: Callable) -> Callable:
    """Returns the gradient of a batch's mean loss over its real rows."""

    def gradient(params, model_state, batch, key):
        def mean_loss(params):
            sums, new_state = loss(params, model_state, batch, key, True)
            return sums.loss / jnp.maximum(sums.weight, 1), (sums, new_state)

        grads, (sums, new_state) = jax.grad(mean_loss, has_aux=True)(params)
        return grads, sums, new_state

    return gradient


def bind(
    task: Task,
    frozen: PyTree,
    preprocess: Callable[[dict], dict] | None = None,
    estimator: Callable[[Callable], Callable] = plain,
) -> LocalTask:
    """Binds a task to its frozen constants, its data's preprocessing and an estimator."""

    def prepared(batch):
        if preprocess is None:
            return batch
        return preprocess({k: v for k, v in batch.items() if k != "mask"}) | {"mask": batch["mask"]}

    def loss(params, model_state, batch, key, train):
        (values, weights), new_state = task.loss(
            params, frozen, model_state, prepared(batch), key, train
        )
        return LossSums(values.sum(), weights.sum().astype(values.dtype)), new_state

    def metrics(params, model_state, batch):
        return task.metrics(params, frozen, model_state, prepared(batch))

    return LocalTask(estimator(loss), loss, metrics)
