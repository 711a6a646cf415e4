"""Ditto: beside the global model, each client trains one of its own that is pulled towards it.

Li et al. 2021, "Ditto: fair and robust federated learning through personalization"
(arXiv:2012.04221), Algorithm 1, with FedAvg as the solver of the global objective:

    clients   w_i <- w_i - lr g_i(w_i),  from w_i = w          sent, as in FedAvg
              v_i <- v_i - lr (g_i(v_i) + lam (v_i - w))       kept
    server    w <- w + server_lr mean(w_i - w)

w is the model that the round began with, v_i starts as the initial model, and lam = 0 is local-only
training beside FedAvg. Both models train on the same batches, unless the own one has local epochs
of its own.
"""

from __future__ import annotations

from typing import NamedTuple

import jax

from fljax.algorithms.fedavg import (
    LocalState,
    fedavg,
    pull_towards_message,
    sgd_step,
    start_local,
)
from fljax.algorithms.optimizer_arguments import hyperparameters
from fljax.core.algorithm import Algorithm, AlgorithmSpec, ClientPass, Job, Variables
from fljax.core.gradients import LocalTask
from fljax.core.settings import ALGORITHM
from fljax.core.values import checked


class Shared(NamedTuple):
    """Training of the shared model, and the own one beside, which waits."""

    local: LocalState
    own: Variables


def ditto(
    lam: float = 0.1,
    client_lr: float = 0.1,
    server_lr: float = 1.0,
    *,
    personal_epochs: int | None = None,
    weighting: str = "examples",
    **options,
) -> AlgorithmSpec:
    """Returns Ditto; `personalize` gives a client's own model.

    Args:
      lam: How strongly own models are pulled towards the global one; 0 for not at all.
      client_lr: Learning rate of both models.
      server_lr: Learning rate of the server.
      personal_epochs: Local epochs of the own model; None for the batches of the shared one.
      weighting: "examples" weights a client by its rows, "uniform" counts clients alike.
      **options: Further arguments of `fedavg`; its client optimizer trains both models, and starts
        anew in each round.

    Raises:
      TypeError, ValueError: As `fedavg`.

    Example:
      >>> algorithms.ditto(lam=1.0, client_lr=0.05).hparams
      {'client_lr': 0.05, 'server_lr': 1.0, 'lam': 1.0}
    """
    checked("personal_epochs", personal_epochs, ALGORITHM["personal_epochs"])
    options.setdefault("name", "ditto")
    plain = fedavg(client_lr, server_lr, weighting=weighting, **options)

    build_fedavg, client_optimizer = plain.build, plain.client_optimizer

    def build(task: LocalTask, hp) -> Algorithm:
        algorithm = build_fedavg(task, hp)
        (shared,) = algorithm.passes
        optimizer, pull = client_optimizer(hp), pull_towards_message(hp["lam"])

        def own_step(message: Variables, own: LocalState, batch, job: Job):
            return sgd_step(task, optimizer, message, own, batch, job, pull)

        personal = ClientPass(
            broadcast=shared.broadcast,
            start=lambda message, own, job: start_local(own, optimizer),
            step=own_step,
            finish=lambda message, own, job: ({}, _model(own), _own_loss(own)),
            schedule=personal_epochs or "local",
        )
        # one pass after the other takes 2.0 times FedAvg's round on a CPU; both models in one step
        # took 2.3 times as long
        shared_beside = shared._replace(
            broadcast=None,
            start=lambda message, own, job: Shared(shared.start(message, (), job), own),
            step=lambda message, carry, batch, job: carry._replace(
                local=shared.step(message, carry.local, batch, job)
            ),
            finish=lambda message, carry, job: _finished(shared, message, carry, job),
        )
        return algorithm._replace(
            passes=(personal, shared_beside),
            init_client=lambda variables: variables,
            personalize=lambda server, own, batch, key: own,
        )

    values = hyperparameters("ditto", {"lam": lam})
    return plain._replace(build=build, hparams={**plain.hparams, **values})


def _finished(shared: ClientPass, message: Variables, carry: Shared, job: Job):
    """Sends what FedAvg sends, and keeps the own model as it is."""
    sent, _, stats = shared.finish(message, carry.local, job)
    return sent, carry.own, stats


def _own_loss(local: LocalState) -> dict[str, jax.Array]:
    return {"personal_loss": local.loss, "personal_loss/weight": local.weight}


def _model(local: LocalState) -> Variables:
    return Variables(local.params, local.model_state)
