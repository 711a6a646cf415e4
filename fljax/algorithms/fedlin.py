"""FedLin: gradients at the server's model are exchanged first, and correct all local steps.

Mitra et al. 2021, "Linear convergence in federated learning: tackling client heterogeneity and
sparse gradients" (arXiv:2102.07053), Algorithm 1. With tau_i local steps of client i:

    clients   send g_i = grad f_i(x), over all of their rows
    server    g = mean(g_i)
    clients   y_i <- y_i - lr / tau_i (g_i(y_i) - g_i + g)
    server    x <- x + server_lr mean(y_i - x)

Steps are the smaller the more a client takes, so that all clients go equally far, and the minimum
is where nobody moves: convergence is linear, to the minimum itself, whatever the tau_i. (The paper
also sparsifies what is sent; here that is the uplink's to do.)
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import optax

from fljax.algorithms import optimizer_arguments
from fljax.algorithms.fedavg import (
    LocalState,
    check_weighting,
    from_passes,
    job_weight,
    local_training,
    sgd,
    sgd_step,
)
from fljax.algorithms.fedsgd import GradientSum, gradient_pass
from fljax.algorithms.scaffold import no_control
from fljax.core.algorithm import Algorithm, AlgorithmSpec, Contribution
from fljax.core.gradients import LocalTask

PyTree = Any


class Message(NamedTuple):
    """The global model and the mean of the clients' gradients there."""

    params: PyTree
    model_state: PyTree
    gradient: PyTree


class Corrected(NamedTuple):
    """Local training and the client's gradient at the global model."""

    local: LocalState
    client_gradient: PyTree


def fedlin(
    client_lr: float = 0.1, server_lr: float = 1.0, *, weighting: str = "uniform"
) -> AlgorithmSpec:
    """Returns FedLin.

    The client's gradient goes from one pass to the next as its state, a row of the client store.

    Args:
      client_lr: What a client's learning rate is, times its number of local steps.
      server_lr: Learning rate of the server; 1 averages the clients' models.
      weighting: Of gradients and changes: "uniform" as in the paper, or "examples".

    Raises:
      ValueError: If `weighting` is neither of the two, or a number is out of range.

    Example:
      >>> algorithms.fedlin(client_lr=0.5).hparams
      {'client_lr': 0.5, 'server_lr': 1.0}
    """
    check_weighting(weighting)
    client_optimizer = sgd()

    def build(task: LocalTask, hp) -> Algorithm:
        optimizer = client_optimizer(hp)
        local = local_training(task, optimizer, weighting)

        def send_gradient(total: GradientSum, job):
            gradient = total.mean()
            weight = job_weight(weighting, job, total.loss)
            return {"gradient": Contribution(gradient, weight)}, gradient, {}

        def start(message: Message, client_gradient, job):
            return Corrected(local.start(message, (), job), client_gradient)

        def step(message: Message, carry: Corrected, batch, job):
            def correct(grads, params, message):
                return jax.tree.map(
                    lambda g, mine, mean: (g - mine + mean) / job.steps,
                    grads,
                    carry.client_gradient,
                    message.gradient,
                )

            return carry._replace(
                local=sgd_step(task, optimizer, message, carry.local, batch, job, correct)
            )

        def finish(message: Message, carry: Corrected, job):
            sent, _, stats = local.finish(message, carry.local, job)
            return sent, carry.client_gradient, stats

        corrected = local._replace(
            broadcast=lambda server, aggregates: Message(
                server.variables.params,
                server.variables.model_state,
                aggregates["gradient"].mean(),
            ),
            start=start,
            step=step,
            finish=finish,
        )
        algorithm = from_passes(
            (gradient_pass(task, send_gradient), corrected), optax.sgd(hp["server_lr"])
        )
        return algorithm._replace(init_client=no_control)

    own = {"client_lr": client_lr, "server_lr": server_lr}
    values = optimizer_arguments.hyperparameters("fedlin", own)
    return AlgorithmSpec("fedlin", build, values, client_optimizer)
