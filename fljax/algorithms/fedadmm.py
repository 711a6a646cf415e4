"""FedADMM: clients minimize augmented Lagrangians, and the server follows their augmented models.

Gong et al. 2022, "FedADMM: a robust federated deep learning framework with adaptivity to system
heterogeneity" (arXiv:2203.15104), Algorithm 1; its penalty rho is called mu, as FedProx's
coefficient is. A client keeps its model w_i and its dual variable y_i:

    clients   w near the minimum of  f_i(w) + <y_i, w - x> + mu/2 |w - x|^2,  starting from x
              y_i' = y_i + mu (w - x)        sends  (w + y_i'/mu) - (w_i + y_i/mu)
    server    x <- x + server_lr mean of what is sent

Before a client's first round w_i is the initial model and y_i zero, so with server_lr =
clients_per_round / num_clients x is the mean of w_i + y_i/mu over all clients, as in the paper's
analysis; its experiments take 1. (The authors' code forgets w_i, and sends 2 (w - x).) A client
that stands several times in a cohort keeps what the last left.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import optax

from fljax.algorithms.fedavg import (
    LocalState,
    check_weighting,
    from_passes,
    local_training,
    sgd,
    sgd_step,
)
from fljax.algorithms.fedspeed import check_divides
from fljax.algorithms.optimizer_arguments import hyperparameters
from fljax.algorithms.scaffold import no_control
from fljax.core.algorithm import Algorithm, AlgorithmSpec, Variables
from fljax.core.gradients import LocalTask
from fljax.core.precision import difference, widened

PyTree = Any


class OwnModel(NamedTuple):
    """A client's model w_i and its dual variable y_i."""

    params: PyTree
    dual: PyTree


class Training(NamedTuple):
    """Local training, and what the client had before."""

    local: LocalState
    own: OwnModel


def fedadmm(
    mu: float = 0.01,
    client_lr: float = 0.1,
    server_lr: float = 1.0,
    *,
    client_momentum: float | None = None,
    client_weight_decay: float | None = None,
    weighting: str = "uniform",
) -> AlgorithmSpec:
    """Returns FedADMM.

    Args:
      mu: The paper's rho, 0.01 in its experiments.
      client_lr: Learning rate of the clients' SGD.
      server_lr: The server's step.
      client_momentum: Momentum of the clients' SGD, starting from zero in each round; None for
        plain SGD.
      client_weight_decay: Its weight decay; None for nothing.
      weighting: "uniform" as in the paper, or "examples".

    Raises:
      ValueError: If mu is 0, or a number is out of range.

    Example:
      >>> algorithms.fedadmm(mu=0.1).hparams
      {'mu': 0.1, 'client_lr': 0.1, 'server_lr': 1.0}
    """
    check_weighting(weighting)
    values = hyperparameters(
        "fedadmm", {"mu": mu, "client_lr": client_lr, "server_lr": server_lr},
        client_momentum=client_momentum, client_weight_decay=client_weight_decay,
    )  # fmt: skip
    check_divides("fedadmm", mu)
    client_optimizer = sgd(client_momentum, client_weight_decay)

    def build(task: LocalTask, hp) -> Algorithm:
        optimizer = client_optimizer(hp)
        local = local_training(task, optimizer, weighting)

        def start(message: Variables, own: OwnModel, job):
            return Training(local.start(message, (), job), own)

        def step(message: Variables, carry: Training, batch, job):
            def correct(grads, params, message):
                return jax.tree.map(
                    lambda g, y, gap: g + y + hp["mu"] * gap,
                    grads,
                    carry.own.dual,
                    difference(params, message.params),
                )

            trained = sgd_step(task, optimizer, message, carry.local, batch, job, correct)
            return carry._replace(local=trained)

        def finish(message: Variables, carry: Training, job):
            sent, _, stats = local.finish(message, carry.local, job)
            way, trained = sent["update"], widened(carry.local.params)
            dual = jax.tree.map(lambda y, d: y + hp["mu"] * d, carry.own.dual, way.value)
            # y_i' - y_i is mu (w - x)
            update = jax.tree.map(
                lambda d, w, before: (w - before) + d, way.value, trained, carry.own.params
            )
            sent["update"] = way._replace(value=update)
            return sent, OwnModel(trained, dual), stats

        augmented = local._replace(start=start, step=step, finish=finish)
        algorithm = from_passes((augmented,), optax.sgd(hp["server_lr"]))
        return algorithm._replace(
            init_client=lambda variables: OwnModel(widened(variables.params), no_control(variables))
        )

    return AlgorithmSpec("fedadmm", build, values, client_optimizer)
