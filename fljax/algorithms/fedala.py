"""FedALA: clients mix the global model into their own, entry by entry, before they train.

Zhang et al. 2023, "FedALA: adaptive local aggregation for personalized federated learning"
(arXiv:2212.01197), Algorithm 1. v is a client's model of its last round, W its weights, one for
each parameter of the higher layers, all 1 at first:

    clients   u <- v + (w - v) W                               lower layers: u = w
              W <- clip(W - ala_lr grad f_i(u) (w - v), 0, 1)  on a share of the client's rows
              v <- local training from u                       kept, and sent: v - w
    server    w <- w + server_lr mean(v_i - w)

W is learned batch by batch, in a pass of its own over the first `ala_share` of the rows in the
round's order. In the first round in which a client's model differs from the global one, W is
learned until convergence: there the paper repeats the pass until ten losses in a row deviate by
less than 0.1, about ten times, and here each batch takes `ala_start_steps` steps.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fljax.algorithms.fedavg import LocalState, fedavg
from fljax.algorithms.optimizer_arguments import hyperparameters
from fljax.core.algorithm import Algorithm, AlgorithmSpec, ClientPass, Job, Variables, step_key
from fljax.core.gradients import LocalTask
from fljax.core.personal import Filter, check_filter, chosen, like_part, part_of, together
from fljax.core.precision import difference, rounded, widened
from fljax.core.settings import ALGORITHM
from fljax.core.values import checked

PyTree = Any


class Own(NamedTuple):
    """A client's model, its weights of the higher layers, and whether they were learned once."""

    model: Variables
    weights: PyTree
    learned: jax.Array


class Learning(NamedTuple):
    """The pass over weights: what the client keeps, and how many rows it has seen."""

    own: Own
    rows: jax.Array


class Training(NamedTuple):
    """Local training, and what the client keeps beside its model."""

    local: LocalState
    weights: PyTree
    learned: jax.Array


def fedala(
    ala_lr: float = 1.0,
    client_lr: float = 0.1,
    server_lr: float = 1.0,
    *,
    ala_layers: Filter = "head",
    ala_share: float = 0.8,
    ala_start_steps: int = 10,
    weighting: str = "examples",
    **options,
) -> AlgorithmSpec:
    """Returns FedALA; `personalize` gives a client's model as its last round left it.

    Args:
      ala_lr: Learning rate of the weights, the paper's eta.
      client_lr: Learning rate of the clients.
      server_lr: Learning rate of the server.
      ala_layers: The higher layers, a filter as in `fljax.core.personal`: "head" is the paper's
        p = 1, "all" mixes every layer.
      ala_share: Share of a client's rows that weights are learned on, the paper's s.
      ala_start_steps: Steps on each batch where a client learns its weights for the first time.
      weighting: "examples" weights a client by its rows, "uniform" counts clients alike.
      **options: Further arguments of `fedavg`.

    Raises:
      TypeError, ValueError: As `fedavg`; for filters that mean nothing in the model.

    Example:
      >>> algorithms.fedala(client_lr=0.05).hparams
      {'client_lr': 0.05, 'server_lr': 1.0, 'ala_lr': 1.0, 'ala_share': 0.8}
    """
    check_filter("ala_layers", ala_layers)
    checked(
        "ala_start_steps", ala_start_steps, ALGORITHM["ala_start_steps"]._replace(optional=False)
    )
    options.setdefault("name", "fedala")
    plain = fedavg(client_lr, server_lr, weighting=weighting, **options)
    build_fedavg = plain.build

    def build(task: LocalTask, hp) -> Algorithm:
        algorithm, known = build_fedavg(task, hp), []
        (average,) = algorithm.passes

        def higher(model: Variables) -> PyTree:
            """Returns which parameters are mixed, found once."""
            if not known:
                known.append(chosen("ala_layers", ala_layers, task, model).params)
            return known[0]

        def learn(message: Variables, carry: Learning, batch, job: Job) -> Learning:
            own, width = carry.own, batch["mask"].shape[0]
            gap = _gap(message, own)
            rows = carry.rows + jnp.arange(width, dtype=carry.rows.dtype)
            used = batch | {"mask": batch["mask"] & (rows < hp["ala_share"] * job.rows)}

            def learned(number, weights):
                key = jax.random.fold_in(step_key(job), number)
                mixed = _mixed(message, own._replace(weights=weights))
                gradient = like_part(task.gradient(*mixed, used, key)[0], weights)
                return jax.tree.map(
                    lambda w, g, d: jnp.clip(w - hp["ala_lr"] * g * d, 0, 1), weights, gradient, gap
                )

            steps = jnp.where(used["mask"].any(), jnp.where(own.learned, 1, ala_start_steps), 0)
            weights = jax.lax.fori_loop(0, steps, learned, own.weights)
            seen = carry.rows + batch["mask"].sum(dtype=carry.rows.dtype)
            return Learning(own._replace(weights=weights), seen)

        def keep_weights(message: Variables, carry: Learning, job: Job):
            own = carry.own
            differ = [jnp.any(leaf != 0) for leaf in jax.tree.leaves(_gap(message, own))]
            learned = own.learned | jnp.any(jnp.stack(differ))
            return {}, own._replace(learned=learned), {}

        def start(message: Variables, own: Own, job: Job) -> Training:
            local = average.start(_mixed(message, own), (), job)
            return Training(local, own.weights, own.learned)

        def step(message: Variables, carry: Training, batch, job: Job) -> Training:
            return carry._replace(local=average.step(message, carry.local, batch, job))

        def finish(message: Variables, carry: Training, job: Job):
            sent, _, stats = average.finish(message, carry.local, job)
            model = Variables(carry.local.params, carry.local.model_state)
            return sent, Own(model, carry.weights, carry.learned), stats

        def init_client(variables: Variables) -> Own:
            mixed = part_of(variables.params, higher(variables))
            ones = jax.tree.map(jnp.ones_like, widened(mixed))
            return Own(variables, ones, jnp.bool_(False))

        learning = ClientPass(
            broadcast=average.broadcast,
            start=lambda message, own, job: Learning(own, jnp.int32(0)),
            step=learn,
            finish=keep_weights,
            schedule="epoch",
        )
        return algorithm._replace(
            passes=(learning, ClientPass(average.broadcast, start, step, finish)),
            init_client=init_client,
            personalize=lambda server, own, batch, key: own.model,
        )

    values = hyperparameters("fedala", {"ala_lr": ala_lr, "ala_share": ala_share})
    return plain._replace(build=build, hparams={**plain.hparams, **values})


def _gap(message: Variables, own: Own) -> PyTree:
    """Returns w - v of the higher layers."""
    return difference(
        *(like_part(params, own.weights) for params in (message.params, own.model.params))
    )


def _mixed(message: Variables, own: Own) -> Variables:
    """Returns u: the global model, with the client's mixture in the higher layers."""
    mine = like_part(own.model.params, own.weights)
    mixed = jax.tree.map(
        lambda v, d, weight: v + d * weight, widened(mine), _gap(message, own), own.weights
    )
    return message._replace(params=together(rounded(mixed, mine), message.params))
