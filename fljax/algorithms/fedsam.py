"""FedSAM: clients step along the gradient that they find uphill, towards flat minima.

Qu et al. 2022, "Generalized federated learning via sharpness aware minimization"
(arXiv:2206.02618). Each local step takes two gradients on its batch,

    g = grad f(y)        y <- y - lr grad f(y + rho g / |g|)

and all else is FedAvg. The model's state (BatchNorm) and the training loss are those of the first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from fljax.algorithms.fedavg import fedavg
from fljax.algorithms.optimizer_arguments import hyperparameters
from fljax.core.algorithm import AlgorithmSpec
from fljax.core.gradients import LocalTask
from fljax.core.precision import rounded, widened
from fljax.core.trees import square_norm

PyTree = Any


def fedsam(
    rho: float = 0.05,
    client_lr: float = 0.1,
    server_lr: float = 1.0,
    *,
    weighting: str = "examples",
    **options,
) -> AlgorithmSpec:
    """Returns FedSAM.

    Args:
      rho: How far uphill the gradient is taken. The paper tunes it among 0.01, 0.1 and 0.5; 0 is
        FedAvg.
      client_lr: Learning rate of the clients.
      server_lr: Learning rate of the server.
      weighting: "examples" weights a client by its rows, "uniform" counts clients alike.
      **options: Further arguments of `fedavg`.

    Raises:
      TypeError, ValueError: As `fedavg`.

    Example:
      >>> algorithms.fedsam(rho=0.1).hparams
      {'client_lr': 0.1, 'server_lr': 1.0, 'rho': 0.1}
    """
    options.setdefault("name", "fedsam")
    plain = fedavg(client_lr, server_lr, weighting=weighting, **options)
    values = {**plain.hparams, **hyperparameters("fedsam", {"rho": rho})}

    averaging = plain.build

    def build(task: LocalTask, hp):
        return averaging(sharpness_aware(task, hp["rho"]), hp)

    return plain._replace(build=build, hparams=values)


def sharpness_aware(task: LocalTask, rho: jax.Array) -> LocalTask:
    """Returns a task whose gradients are those at the distance `rho` uphill."""

    def to_radius(gradient):
        norm = jnp.sqrt(square_norm(gradient))
        return rho / jnp.where(norm > 0, norm, 1)

    return with_ascent(task, to_radius, lambda here, uphill: uphill)


def with_ascent(
    task: LocalTask,
    length: Callable[[PyTree], jax.Array],
    combined: Callable[[PyTree, PyTree], PyTree],
) -> LocalTask:
    """Returns a task whose gradients look uphill.

    Args:
      task: The task.
      length: gradient -> how many times it the parameters are moved.
      combined: (gradient here, gradient uphill) -> the one to step along.
    """

    def gradient(params, model_state, batch, key):
        here, sums, new_state = task.gradient(params, model_state, batch, key)
        scale = length(here)
        moved = jax.tree.map(lambda p, g: p + scale * g, widened(params), widened(here))
        uphill, _, _ = task.gradient(rounded(moved, params), model_state, batch, key)
        return combined(here, uphill), sums, new_state

    return task._replace(gradient=gradient)
