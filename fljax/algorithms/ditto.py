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

from fljax.algorithms.fedavg import (
    LocalState,
    fedavg,
    loss_stats,
    pull_towards_message,
    sgd_step,
    start_local,
)
from fljax.algorithms.optimizer_arguments import hyperparameters
from fljax.core.algorithm import Algorithm, AlgorithmSpec, ClientPass, Job, Variables
from fljax.core.gradients import LocalTask
from fljax.core.settings import ALGORITHM
from fljax.core.values import checked


class Both(NamedTuple):
    """What a client sends its part of, as FedAvg trains it; and what it keeps."""

    shared: LocalState
    own: LocalState | Variables


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
      personal_epochs: Local epochs of the own model, in a pass of its own; None for the batches of
        the shared one.
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

        together = ClientPass(
            broadcast=shared.broadcast,
            start=lambda message, own, job: Both(
                shared.start(message, (), job), start_local(own, optimizer)
            ),
            step=lambda message, both, batch, job: Both(
                shared.step(message, both.shared, batch, job),
                own_step(message, both.own, batch, job),
            ),
            finish=lambda message, both, job: _finished(shared, message, both, job),
        )
        alone = ClientPass(
            broadcast=shared.broadcast,
            start=lambda message, own, job: start_local(own, optimizer),
            step=own_step,
            finish=lambda message, own, job: ({}, _model(own), loss_stats(own)),
            schedule=personal_epochs or "local",
        )
        beside = shared._replace(
            start=lambda message, own, job: Both(shared.start(message, (), job), own),
            step=lambda message, both, batch, job: both._replace(
                shared=shared.step(message, both.shared, batch, job)
            ),
            finish=lambda message, both, job: _finished(shared, message, both, job),
        )
        return algorithm._replace(
            passes=(together,) if personal_epochs is None else (alone, beside),
            init_client=lambda variables: variables,
            personalize=lambda server, own, batch, key: own,
        )

    values = hyperparameters("ditto", {"lam": lam})
    return plain._replace(build=build, hparams={**plain.hparams, **values})


def _finished(shared: ClientPass, message: Variables, both: Both, job: Job):
    """Sends what FedAvg sends, and keeps the own model."""
    sent, _, stats = shared.finish(message, both.shared, job)
    if isinstance(both.own, Variables):
        return sent, both.own, stats
    stats |= {"personal_loss": both.own.loss, "personal_loss/weight": both.own.weight}
    return sent, _model(both.own), stats


def _model(local: LocalState) -> Variables:
    return Variables(local.params, local.model_state)
