"""FedExP: the server steps further the less its clients' updates agree.

Jhunjhunwala et al. 2023, "FedExP: speeding up federated averaging via extrapolation"
(arXiv:2301.09604). With d_i the clients' updates, as in FedAvg, and d their mean over M clients:

    rate  =  max(1, sum_i |d_i|^2 / (2 M (|d|^2 + epsilon)))        x <- x + rate d

Clients that are weighted by their rows have these weights in the mean of |d_i|^2, too. What is
evaluated is the mean of the last two x, since single ones oscillate. (The authors' code has
M epsilon in place of epsilon, and lets it fall by 0.998^2 a round.) Clients find |d_i|^2 of the
update that they made and send it beside it; d is the mean of what arrived. Under compression the
rate hence makes up for what d has lost, and is not the one of the decoded d_i.
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
from fljax.algorithms.optimizer_arguments import hyperparameters
from fljax.core.algorithm import Algorithm, AlgorithmSpec, Contribution, Variables
from fljax.core.gradients import LocalTask
from fljax.core.precision import rounded, widened
from fljax.core.trees import square_norm

PyTree = Any


class FedExpState(NamedTuple):
    """FedAvg's server state, and the parameters before its last step."""

    server: ServerState
    previous: PyTree


def fedexp(
    epsilon: float = 0.001,
    client_lr: float = 0.1,
    *,
    client_momentum: float | None = None,
    client_weight_decay: float | None = None,
    weighting: str = "examples",
) -> AlgorithmSpec:
    """Returns FedExP, whose server finds its rate by itself.

    Args:
      epsilon: Keeps the rate small where updates cancel out. The paper tunes it among powers of ten
        from 0.001 to 0.1.
      client_lr: Learning rate of the clients' SGD.
      client_momentum: Its momentum, starting from zero in each round; None for plain SGD.
      client_weight_decay: Its weight decay; None for nothing.
      weighting: "examples" weights a client by its rows, "uniform" counts clients alike.

    Raises:
      ValueError: If a number is out of range, or `weighting` is neither of the two.

    Example:
      >>> algorithms.fedexp(epsilon=0.01, client_lr=0.05).hparams
      {'epsilon': 0.01, 'client_lr': 0.05}
    """
    check_weighting(weighting)
    values = hyperparameters(
        "fedexp", {"epsilon": epsilon, "client_lr": client_lr},
        client_momentum=client_momentum, client_weight_decay=client_weight_decay,
    )  # fmt: skip
    client_optimizer = sgd(client_momentum, client_weight_decay)

    def build(task: LocalTask, hp) -> Algorithm:
        local = local_training(task, client_optimizer(hp), weighting)

        def finish(message: Variables, carry, job):
            sent, kept, stats = local.finish(message, carry, job)
            update = sent["update"]
            sent["square_norm"] = Contribution(square_norm(update.value), update.weight)
            return sent, kept, stats

        def server_update(state: FedExpState, aggregates, round) -> FedExpState:
            del round
            update = aggregates["update"]
            of_mean = square_norm(update.mean()) + hp["epsilon"]
            # neither any update nor epsilon: nothing moves, whatever the rate
            ratio = aggregates["square_norm"].mean() / jnp.where(of_mean > 0, 2 * of_mean, 1)
            server = step_server(state.server, aggregates, optax.sgd(jnp.maximum(1, ratio)))
            before = jax.tree.map(
                lambda now, earlier: jnp.where(update.count > 0, now, earlier),
                state.server.variables.params,
                state.previous,
            )
            return FedExpState(server, before)

        def init(variables: Variables) -> FedExpState:
            return FedExpState(start_server(variables, optax.sgd(1.0)), variables.params)

        def last_two(state: FedExpState) -> Variables:
            params, model_state = state.server.variables
            mean = jax.tree.map(
                lambda now, before: (now + before) / 2, widened(params), widened(state.previous)
            )
            return Variables(rounded(mean, params), model_state)

        return Algorithm(
            init=init,
            passes=(
                local._replace(
                    broadcast=lambda state, aggregates: state.server.variables, finish=finish
                ),
            ),
            server_update=server_update,
            variables=last_two,
        )

    return AlgorithmSpec("fedexp", build, values, client_optimizer)
