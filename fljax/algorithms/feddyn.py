"""FedDyn: each client's loss is regularized so that its minima come to agree with all clients'.

Acar et al. 2021, "Federated learning based on dynamic regularization" (arXiv:2111.04263),
Algorithm 1; its alpha is called mu here, as FedProx's coefficient is. lambda_i is a client's own:

    clients   y_i near the minimum of  f_i(y) - <lambda_i, y> + mu/2 |y - x|^2,  starting from x
              lambda_i <- lambda_i - mu (y_i - x)
    server    h <- h - mu |S| / N mean(y_i - x)           x <- mean(y_i) - h / mu

where N counts the clients that can take part, and S those of the cohort whose weight is not 0. With
clients counted alike h is the mean of all lambda_i. Where nothing moves any more it is zero and
lambda_i the gradient of f_i, so that x is stationary for the mean of the f_i; with other weights,
for their weighted mean if everybody takes part. A client that stands several times in a cohort adds
each of its changes to h, and keeps the lambda_i of the last. (PFLlib's clients penalize the norm
|y - x|, not its square.)
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from fljax.algorithms import optimizer_arguments
from fljax.algorithms.fedavg import (
    LocalState,
    ServerState,
    check_weighting,
    from_passes,
    local_training,
    sgd,
    sgd_step,
    step_server,
)
from fljax.algorithms.scaffold import no_control
from fljax.core.algorithm import Algorithm, AlgorithmSpec, Variables
from fljax.core.gradients import LocalTask
from fljax.core.precision import difference
from fljax.core.values import wrong

PyTree = Any


class FedDynState(NamedTuple):
    """FedAvg's server state and h."""

    server: ServerState
    control: PyTree


class Regularized(NamedTuple):
    """Local training and the client's lambda_i."""

    local: LocalState
    client_control: PyTree


def feddyn(
    mu: float = 0.1,
    client_lr: float = 0.1,
    *,
    client_momentum: float | None = None,
    client_weight_decay: float | None = None,
    weighting: str = "uniform",
) -> AlgorithmSpec:
    """Returns FedDyn.

    Args:
      mu: The paper's alpha, which it tunes among 0.001, 0.01 and 0.1: the fewer local steps, the
        larger it must be.
      client_lr: Learning rate of the clients' SGD.
      client_momentum: Its momentum, starting from zero in each round; None for plain SGD.
      client_weight_decay: Its weight decay; None for nothing.
      weighting: Weights of the model changes: "uniform" as in the paper, or "examples".

    Raises:
      ValueError: If mu is 0, by which the server divides, or a number is out of range.

    Example:
      >>> algorithms.feddyn(mu=0.01, client_lr=0.1).hparams
      {'mu': 0.01, 'client_lr': 0.1}
    """
    check_weighting(weighting)
    values = optimizer_arguments.hyperparameters(
        "feddyn", {"mu": mu, "client_lr": client_lr},
        client_momentum=client_momentum, client_weight_decay=client_weight_decay,
    )  # fmt: skip
    if not isinstance(mu, jax.core.Tracer) and values["mu"] == 0:
        raise wrong("mu", mu, "above 0 with feddyn, whose server divides by it")
    client_optimizer, server_optimizer = sgd(client_momentum, client_weight_decay), optax.sgd(1.0)

    def build(task: LocalTask, hp) -> Algorithm:
        optimizer = client_optimizer(hp)
        local = local_training(task, optimizer, weighting)
        averaging = from_passes((local,), server_optimizer)

        def start(message: Variables, client_control, job):
            return Regularized(local.start(message, (), job), client_control)

        def step(message: Variables, carry: Regularized, batch, job):
            def correct(grads, params, message):
                return jax.tree.map(
                    lambda g, mine, d: g - mine + hp["mu"] * d,
                    grads,
                    carry.client_control,
                    difference(params, message.params),
                )

            return carry._replace(
                local=sgd_step(task, optimizer, message, carry.local, batch, job, correct)
            )

        def finish(message: Variables, carry: Regularized, job):
            sent, _, stats = local.finish(message, carry.local, job)
            control = jax.tree.map(
                lambda mine, d: mine - hp["mu"] * d, carry.client_control, sent["update"].value
            )
            return sent, control, stats

        def server_update(state: FedDynState, aggregates, round):
            del round
            update = aggregates["update"]
            share, mean = update.count / hp["num_clients"], update.mean()
            control = jax.tree.map(lambda h, d: h - hp["mu"] * share * d, state.control, mean)
            shifted = jax.tree.map(lambda d, h: d - h / hp["mu"], mean, control)
            update = update._replace(sum=shifted, weight=jnp.ones(()))
            aggregates = {**aggregates, "update": update}
            return FedDynState(step_server(state.server, aggregates, server_optimizer), control)

        return Algorithm(
            init=lambda variables: FedDynState(averaging.init(variables), no_control(variables)),
            passes=(
                local._replace(
                    broadcast=lambda state, aggregates: state.server.variables,
                    start=start,
                    step=step,
                    finish=finish,
                ),
            ),
            server_update=server_update,
            variables=lambda state: state.server.variables,
            init_client=no_control,
        )

    return AlgorithmSpec("feddyn", build, values, client_optimizer)
