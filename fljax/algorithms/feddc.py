"""FedDC: clients learn how far they drift, and the server averages models with their drift added.

Gao et al. 2022, "FedDC: federated learning with non-IID data via local drift decoupling and
correction" (arXiv:2203.11751); its alpha is called mu, as FedProx's coefficient is. A client keeps
its drift h_i and, as in SCAFFOLD, its control variate c_i:

    clients   y <- y - lr (g(y) - c_i + c + mu (y + h_i - x))
              h_i <- h_i + (y - x)                 c_i' = c_i - c + (x - y) / (K lr)
    server    x <- mean(y) + h                     c <- c + |S| / N mean(c_i' - c_i)
              where h, the mean of all clients' drifts, has grown by |S| / N mean(y - x) before

N counts the clients that can take part. This is the authors' code, where everybody counts alike;
the paper's formula for the server is a mean over all clients, and where all take part both are one.
A client that stands several times in a cohort adds each of its changes to c and h, and keeps the
h_i and c_i of the last.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from fljax.algorithms.fedavg import (
    LocalState,
    ServerState,
    check_weighting,
    local_training,
    sgd,
    sgd_step,
    start_server,
    step_server,
)
from fljax.algorithms.optimizer_arguments import hyperparameters
from fljax.algorithms.scaffold import Message, no_control
from fljax.core.algorithm import Algorithm, AlgorithmSpec, Contribution, Variables
from fljax.core.gradients import LocalTask
from fljax.core.precision import difference

PyTree = Any


class FedDCState(NamedTuple):
    """FedAvg's server state, the mean drift h and the control variate c."""

    server: ServerState
    drift: PyTree
    control: PyTree


class OwnDrift(NamedTuple):
    """A client's drift h_i and control variate c_i."""

    drift: PyTree
    control: PyTree


class Training(NamedTuple):
    """Local training, and what the client had before."""

    local: LocalState
    own: OwnDrift


def feddc(mu: float = 0.01, client_lr: float = 0.1, *, weighting: str = "uniform") -> AlgorithmSpec:
    """Returns FedDC with plain SGD.

    Args:
      mu: The paper's alpha, which it tunes among 0.005, 0.01 and 0.1.
      client_lr: Learning rate of the clients.
      weighting: Weights of the models: "uniform", or "examples"; drifts always count alike.

    Raises:
      ValueError: If a number is out of range, or `weighting` is neither of the two.

    Example:
      >>> algorithms.feddc(mu=0.1).hparams
      {'mu': 0.1, 'client_lr': 0.1}
    """
    check_weighting(weighting)
    values = hyperparameters("feddc", {"mu": mu, "client_lr": client_lr})
    client_optimizer = sgd()

    def build(task: LocalTask, hp) -> Algorithm:
        optimizer, averaging = client_optimizer(hp), optax.sgd(1.0)
        local = local_training(task, optimizer, weighting)

        def start(message: Message, own: OwnDrift, job):
            return Training(local.start(message.variables, (), job), own)

        def step(message: Message, carry: Training, batch, job):
            def correct(grads, params, message):
                return jax.tree.map(
                    lambda g, mine, c, h, gap: g - mine + c + hp["mu"] * (gap + h),
                    grads,
                    carry.own.control,
                    message.control,
                    carry.own.drift,
                    difference(params, message.variables.params),
                )

            trained = sgd_step(task, optimizer, message, carry.local, batch, job, correct)
            return carry._replace(local=trained)

        def finish(message: Message, carry: Training, job):
            sent, _, stats = local.finish(message.variables, carry.local, job)
            way = sent["update"].value
            # a schedule may end at 0: then nothing moved, and nothing was learned about the drift
            moves = hp["client_lr"] > 0
            travelled = jnp.maximum(job.steps, 1) * jnp.where(moves, hp["client_lr"], 1)
            change = jax.tree.map(
                lambda c, d: jnp.where(moves, -c - d / travelled, 0), message.control, way
            )
            add = lambda a, b: jax.tree.map(jnp.add, a, b)  # noqa: E731
            one = jnp.ones_like(sent["update"].weight)
            sent |= {"drift": Contribution(way, one), "control": Contribution(change, one)}
            own = OwnDrift(add(carry.own.drift, way), add(carry.own.control, change))
            return sent, own, stats

        def server_update(state: FedDCState, aggregates, round) -> FedDCState:
            del round

            def grown(old, name):
                return jax.tree.map(
                    lambda mean, total: mean + total / hp["num_clients"], old, aggregates[name].sum
                )

            drift = grown(state.drift, "drift")
            update = aggregates["update"]
            # x + mean(y - x) + h, as a mean of what was sent
            corrected = jax.tree.map(lambda total, h: total + update.weight * h, update.sum, drift)
            aggregates = {**aggregates, "update": update._replace(sum=corrected)}
            server = step_server(state.server, aggregates, averaging)
            return FedDCState(server, drift, grown(state.control, "control"))

        def init(variables: Variables) -> FedDCState:
            zero = no_control(variables)
            return FedDCState(start_server(variables, averaging), zero, zero)

        passes = local._replace(
            broadcast=lambda state, aggregates: Message(state.server.variables, state.control),
            start=start,
            step=step,
            finish=finish,
        )
        return Algorithm(
            init=init,
            passes=(passes,),
            server_update=server_update,
            variables=lambda state: state.server.variables,
            init_client=lambda variables: OwnDrift(no_control(variables), no_control(variables)),
        )

    return AlgorithmSpec("feddc", build, values, client_optimizer)
