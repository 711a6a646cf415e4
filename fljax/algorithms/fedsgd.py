"""FedSGD: one gradient over all of a client's rows, one server step a round.

McMahan et al. 2017 (arXiv:1602.05629), the baseline with E = 1 and B = infinity. The gradient is
summed batch by batch, so a client of any size fits in memory.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from fljax.algorithms import optimizer_arguments
from fljax.algorithms.fedavg import (
    check_weighting,
    contributions,
    from_passes,
    job_weight,
    loss_stats,
    zero_of,
)
from fljax.core.algorithm import Algorithm, AlgorithmSpec, ClientPass, OptimizerFactory, step_key
from fljax.core.gradients import LocalTask
from fljax.core.precision import state_change, widened

PyTree = Any


class GradientSum(NamedTuple):
    """A gradient summed over rows, at a fixed model."""

    grads: PyTree
    model_state: PyTree
    loss: jax.Array
    weight: jax.Array

    def mean(self) -> PyTree:
        """Returns the gradient of the client's mean loss."""
        return jax.tree.map(lambda g: g / jnp.maximum(self.weight, 1), self.grads)


def gradient_pass(task: LocalTask, finish) -> ClientPass:
    """Returns a pass that sums the gradient at the broadcast model over every row.

    Args:
      task: The bound task.
      finish: (GradientSum, job) -> ({name: Contribution}, client_state', stats); of the model's
        state it is given what `fljax.core.precision.state_change` makes of it.
    """

    def start(message, client_state, job):
        del client_state, job
        zero = zero_of(message.params)
        zeros = jax.tree.map(jnp.zeros_like, widened(message.params))
        return GradientSum(zeros, message.model_state, zero, zero)

    def step(message, carry, batch, job):
        grads, sums, model_state = task.gradient(
            message.params, carry.model_state, batch, step_key(job)
        )
        grads = jax.tree.map(lambda total, g: total + g * sums.weight, carry.grads, grads)
        return GradientSum(grads, model_state, carry.loss + sums.loss, carry.weight + sums.weight)

    def finish_sum(message, carry, job):
        state = state_change(carry.model_state, message.model_state, task.state_changes)
        return finish(carry._replace(model_state=state), job)

    return ClientPass(
        broadcast=lambda server, aggregates: server.variables,
        start=start,
        step=step,
        finish=finish_sum,
        schedule="epoch",
    )


def fedsgd(
    server_lr: float = 0.1,
    *,
    weighting: str = "examples",
    server_optimizer: OptimizerFactory | None = None,
    **hparams: float,
) -> AlgorithmSpec:
    """Returns FedSGD.

    Args:
      server_lr: Learning rate of the server's step along the mean gradient.
      weighting: "examples" weights a client by its rows, "uniform" counts clients alike.
      server_optimizer: Replaces the server's SGD: hparams -> optax optimizer.
      **hparams: Further numbers that the optimizer reads from hparams.

    Raises:
      TypeError, ValueError: As `fedavg`.

    Example:
      >>> algorithms.fedsgd(server_lr=0.1).hparams
      {'server_lr': 0.1}
    """
    check_weighting(weighting)
    values = optimizer_arguments.hyperparameters(
        "fedsgd", {"server_lr": server_lr}, hparams, (server_optimizer,)
    )
    defaults = optimizer_arguments.defaults_of(fedsgd)
    if server_optimizer is None:
        server_optimizer = lambda hp: optax.sgd(hp["server_lr"])  # noqa: E731
    else:
        server_optimizer = optimizer_arguments.optimizer("server_optimizer", server_optimizer)

    def build(task: LocalTask, hp) -> Algorithm:
        def finish(carry: GradientSum, job):
            update = jax.tree.map(jnp.negative, carry.mean())
            weight = job_weight(weighting, job, carry.loss)
            return contributions(update, carry.model_state, weight), (), loss_stats(carry)

        return from_passes((gradient_pass(task, finish),), server_optimizer(hp))

    return AlgorithmSpec("fedsgd", build, values, defaults=defaults)
