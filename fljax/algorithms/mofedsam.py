"""MoFedSAM: FedSAM whose clients mix the server's last direction into their steps.

Qu et al. 2022, "Generalized federated learning via sharpness aware minimization"
(arXiv:2206.02618), Algorithm 2. The paper's beta is called gradient_share, rho is FedSAM's:

    clients   g = grad f(y)        y <- y - lr (beta grad f(y + rho g / |g|) + (1 - beta) m)
    server    x <- x + server_lr mean(y - x)        m <- mean(x - y) / mean(lr K)

m starts from zero. K is how many steps a client takes, one number in the paper; here clients may
take unequally many, so each sends lr K as a number, and m is the mean way per unit of rate. With
rho = 0 this is FedCM (Xu et al. 2021, arXiv:2106.10874), with beta = 1 FedSAM.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from fljax.algorithms.fedavg import (
    ServerState,
    check_weighting,
    local_training,
    sgd,
    start_server,
    step_server,
)
from fljax.algorithms.fedsam import sharpness_aware
from fljax.algorithms.optimizer_arguments import hyperparameters
from fljax.core.algorithm import Algorithm, AlgorithmSpec, Contribution, Variables
from fljax.core.gradients import LocalTask
from fljax.core.precision import rounded, widened

PyTree = Any


class MomentumState(NamedTuple):
    """The server's own state, and the direction m of its last round."""

    server: ServerState
    momentum: PyTree


class Message(NamedTuple):
    """The global model, and m."""

    params: PyTree
    model_state: PyTree
    momentum: PyTree


def mofedsam(
    rho: float = 0.05,
    gradient_share: float = 0.1,
    client_lr: float = 0.1,
    server_lr: float = 1.0,
    *,
    weighting: str = "uniform",
) -> AlgorithmSpec:
    """Returns MoFedSAM with plain SGD.

    Args:
      rho: How far uphill the gradient is taken, as in `fedsam`; 0 is FedCM.
      gradient_share: The paper's beta, the share of the gradient in a local step; the rest is the
        server's last direction. 1 is FedSAM.
      client_lr: Learning rate of the clients.
      server_lr: Learning rate of the server.
      weighting: "uniform" as in the paper, or "examples".

    Raises:
      ValueError: If a number is out of range.

    Example:
      >>> algorithms.mofedsam(rho=0.1).hparams["gradient_share"]
      0.1
    """
    check_weighting(weighting)
    own = {"rho": rho, "gradient_share": gradient_share}
    values = hyperparameters("mofedsam", own | {"client_lr": client_lr, "server_lr": server_lr})
    client_optimizer = sgd()

    def build(task: LocalTask, hp) -> Algorithm:
        share, averaging = hp["gradient_share"], optax.sgd(hp["server_lr"])

        def mixed(grads, params, message: Message):
            return jax.tree.map(
                lambda g, m: share * g + (1 - share) * m, widened(grads), message.momentum
            )

        uphill = sharpness_aware(task, hp["rho"])
        local = local_training(uphill, client_optimizer(hp), weighting, mixed)

        def broadcast(state: MomentumState, aggregates) -> Message:
            return Message(*state.server.variables, state.momentum)

        def finish(message: Message, carry, job):
            sent, kept, stats = local.finish(message, carry, job)
            path = (job.steps * hp["client_lr"]).astype(carry.loss.dtype)
            return sent | {"path": Contribution(path, sent["update"].weight)}, kept, stats

        def init(variables: Variables) -> MomentumState:
            still = jax.tree.map(jnp.zeros_like, widened(variables.params))
            return MomentumState(start_server(variables, averaging), still)

        def server_update(state: MomentumState, aggregates, round) -> MomentumState:
            del round
            path = aggregates["path"].mean()
            # nobody came, or a schedule has ended at 0 and nobody moved
            momentum = jax.tree.map(
                lambda d, m: jnp.where(path > 0, -d / jnp.where(path > 0, path, 1), m),
                aggregates["update"].mean(),
                state.momentum,
            )
            server = step_server(state.server, aggregates, averaging)
            return MomentumState(server, rounded(momentum, state.momentum))

        return Algorithm(
            init=init,
            passes=(local._replace(broadcast=broadcast, finish=finish),),
            server_update=server_update,
            variables=lambda state: state.server.variables,
        )

    return AlgorithmSpec("mofedsam", build, values, client_optimizer)
