"""Local-only training, the baseline without federation: every client keeps its own model."""

from __future__ import annotations

from fljax.algorithm import Algorithm, AlgorithmSpec, ClientPass, OptimizerFactory, Variables
from fljax.algorithms import checks
from fljax.algorithms.fedavg import (
    ServerState,
    loss_stats,
    sgd_momentum,
    sgd_step,
    start_local,
)
from fljax.gradients import LocalTask


def local_only(
    client_lr: float = 0.1,
    *,
    client_momentum: float | None = None,
    client_optimizer: OptimizerFactory | None = None,
    **hparams: float,
) -> AlgorithmSpec:
    """Returns training in which a selected client continues its own model and sends nothing.

    All clients start from the same initial model. `personalize` gives a client's own model.

    Args:
      client_lr: Learning rate of the clients' SGD.
      client_momentum: Momentum of the clients' SGD, starting from zero in each round.
      client_optimizer: Replaces the clients' SGD: hparams -> optax optimizer.
      **hparams: Further numbers that the optimizer reads from hparams.

    Raises:
      TypeError, ValueError: As `fedavg`.
    """
    values = checks.hyperparameters(
        "local_only",
        {"client_lr": client_lr},
        hparams,
        (client_optimizer,),
        client_momentum=client_momentum,
    )
    defaults = checks.defaults_of(local_only)
    if client_optimizer is None:
        client_optimizer = sgd_momentum(client_momentum)
    else:
        client_optimizer = checks.optimizer("client_optimizer", client_optimizer)

    def build(task: LocalTask, hp) -> Algorithm:
        optimizer = client_optimizer(hp)

        def finish(message, carry, job):
            return {}, Variables(carry.params, carry.model_state), loss_stats(carry)

        local = ClientPass(
            broadcast=lambda server, aggregates: (),
            start=lambda message, own, job: start_local(own, optimizer),
            step=lambda message, carry, batch, job: sgd_step(
                task, optimizer, message, carry, batch, job
            ),
            finish=finish,
        )
        return Algorithm(
            init=lambda variables: ServerState(variables, ()),
            passes=(local,),
            server_update=lambda server, aggregates, round: server,
            variables=lambda server: server.variables,
            init_client=lambda variables: variables,
            personalize=lambda server, own: own,
        )

    return AlgorithmSpec("local_only", build, values, client_optimizer, defaults)
