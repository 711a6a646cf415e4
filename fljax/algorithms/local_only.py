"""Local-only training, the baseline without federation: every client keeps its own model."""

from __future__ import annotations

from typing import Any, NamedTuple

from fljax.algorithms import optimizer_arguments
from fljax.algorithms.fedavg import (
    ServerState,
    loss_stats,
    sgd,
    sgd_step,
    start_local,
)
from fljax.algorithms.optimizers import at_present
from fljax.core.algorithm import Algorithm, AlgorithmSpec, ClientPass, OptimizerFactory, Variables
from fljax.core.gradients import LocalTask
from fljax.core.precision import widened

PyTree = Any


class Own(NamedTuple):
    """A client's model and the state of its optimizer, with which it goes on."""

    params: PyTree
    model_state: PyTree
    opt_state: PyTree


def local_only(
    client_lr: float = 0.1,
    *,
    client_momentum: float | None = None,
    client_optimizer: OptimizerFactory | None = None,
    **hparams: float,
) -> AlgorithmSpec:
    """Returns training in which a selected client continues its own model and sends nothing.

    All clients start from the same initial model. A client's optimizer goes on from round to round,
    with momentum, moments and schedules. `personalize` gives a client's own model.

    Args:
      client_lr: Learning rate of the clients' SGD.
      client_momentum: Momentum of the clients' SGD.
      client_optimizer: Replaces the clients' SGD: hparams -> optax optimizer.
      **hparams: Further numbers that the optimizer reads from hparams.

    Raises:
      TypeError, ValueError: As `fedavg`.

    Example:
      >>> algorithms.local_only(client_lr=0.1).hparams
      {'client_lr': 0.1}
    """
    values = optimizer_arguments.hyperparameters(
        "local_only",
        {"client_lr": client_lr},
        hparams,
        (client_optimizer,),
        client_momentum=client_momentum,
    )
    defaults = optimizer_arguments.defaults_of(local_only)
    if client_optimizer is None:
        client_optimizer = sgd(client_momentum)
    else:
        client_optimizer = optimizer_arguments.optimizer("client_optimizer", client_optimizer)

    def build(task: LocalTask, hp) -> Algorithm:
        optimizer = client_optimizer(hp)

        def start(message, own: Own, job):
            local = start_local(Variables(own.params, own.model_state), optimizer)
            return local._replace(opt_state=at_present(optimizer, own.opt_state, own.params))

        def finish(message, carry, job):
            own = Own(carry.params, carry.model_state, carry.opt_state)
            return {}, own, loss_stats(carry)

        local = ClientPass(
            broadcast=lambda server, aggregates: (),
            start=start,
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
            init_client=lambda variables: Own(
                *variables, opt_state=optimizer.init(widened(variables.params))
            ),
            personalize=lambda server, own, batch, key: Variables(own.params, own.model_state),
            has_global_model=False,
        )

    return AlgorithmSpec(
        "local_only", build, values, client_optimizer, defaults, keeps_optimizer=True
    )
