"""Delta-SGD: each client finds the rate of each local step from how smooth its loss is there.

Kim et al. 2024, "Adaptive federated learning with auto-tuned clients" (arXiv:2306.11201),
Algorithm 1. With y_k a client's parameters before step k, and both gradients of that step's batch:

    lr_k     =  min( gamma |y_k - y_{k-1}| / (2 |grad f(y_k) - grad f(y_{k-1})|),
                     sqrt(1 + delta theta_{k-1}) lr_{k-1} )
    theta_k  =  lr_k / lr_{k-1}                   y_{k+1} = y_k - lr_k grad f(y_k)

from lr_0 = client_lr and theta_0 = 1 in each round; delta is called growth here. All else is
FedAvg, with any server optimizer. A step takes two gradients, at y_k and at y_{k-1}.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fljax.algorithms.fedavg import LocalState, fedavg
from fljax.algorithms.optimizer_arguments import hyperparameters
from fljax.core.algorithm import AlgorithmSpec, OptimizerFactory, Variables, step_key
from fljax.core.gradients import LocalTask
from fljax.core.precision import difference, rounded, widened
from fljax.core.trees import square_norm

PyTree = Any


class Adapting(NamedTuple):
    """Local training, the parameters one step before, the last rate, and its ratio to the last."""

    local: LocalState
    before: PyTree
    rate: jax.Array
    theta: jax.Array


def delta_sgd(
    client_lr: float = 0.2,
    server_lr: float = 1.0,
    *,
    gamma: float = 2.0,
    growth: float = 0.1,
    weighting: str = "examples",
    server_optimizer: OptimizerFactory | None = None,
) -> AlgorithmSpec:
    """Returns Delta-SGD; its defaults are those of all the paper's experiments.

    Args:
      client_lr: Rate of the first step of a round.
      server_lr: Learning rate of the server.
      gamma: How many halves of the inverse of the local smoothness a rate may be.
      growth: The paper's delta: how fast rates may grow.
      weighting: "examples" weights a client by its rows, "uniform" counts clients alike.
      server_optimizer: As for `fedavg`.

    Raises:
      TypeError, ValueError: As `fedavg`.

    Example:
      >>> algorithms.delta_sgd(gamma=1.0).hparams
      {'client_lr': 0.2, 'server_lr': 1.0, 'gamma': 1.0, 'growth': 0.1}
    """
    plain = fedavg(
        client_lr, server_lr, weighting=weighting, server_optimizer=server_optimizer,
        name="delta_sgd",
    )  # fmt: skip
    own = hyperparameters("delta_sgd", {"gamma": gamma, "growth": growth})

    averaging = plain.build

    def build(task: LocalTask, hp):
        algorithm = averaging(task, hp)
        (local,) = algorithm.passes

        def start(message: Variables, client_state, job):
            begun = local.start(message, client_state, job)
            rate = jnp.asarray(hp["client_lr"], begun.loss.dtype)
            return Adapting(begun, message.params, rate, jnp.ones_like(rate))

        def step(message: Variables, carry: Adapting, batch, job):
            now, key = carry.local, step_key(job)
            grads, sums, model_state = task.gradient(now.params, now.model_state, batch, key)
            there, _, _ = task.gradient(carry.before, now.model_state, batch, key)
            way = jnp.sqrt(square_norm(difference(now.params, carry.before)))
            bend = jnp.sqrt(square_norm(difference(grads, there)))
            smooth = jnp.where(
                bend > 0, hp["gamma"] * way / jnp.where(bend > 0, 2 * bend, 1), jnp.inf
            )
            grown = jnp.sqrt(1 + hp["growth"] * carry.theta) * carry.rate
            rate = jnp.where(job.step == 0, carry.rate, jnp.minimum(smooth, grown))
            moves = carry.rate > 0  # a schedule may end at 0
            theta = jnp.where(moves, rate / jnp.where(moves, carry.rate, 1), 1)
            moved = jax.tree.map(lambda p, g: p - rate * g, widened(now.params), widened(grads))
            trained = now._replace(
                params=rounded(moved, now.params),
                model_state=model_state,
                loss=now.loss + sums.loss,
                weight=now.weight + sums.weight,
            )
            return Adapting(trained, now.params, rate.astype(carry.rate.dtype), theta)

        def finish(message: Variables, carry: Adapting, job):
            return local.finish(message, carry.local, job)

        return algorithm._replace(passes=(local._replace(start=start, step=step, finish=finish),))

    return plain._replace(build=build, hparams={**plain.hparams, **own})
