"""TERM: the exponentials of the clients' losses are averaged, tilted to large or to small ones.

Li et al. 2021, "Tilted empirical risk minimization" (arXiv:2007.01162), with clients as the groups
of its section 4: the objective 1/t log(sum of p_k exp(t F_k)), whose gradient weights clients by

    v_k = p_k exp(t F_k) / sum of p_j exp(t F_j)    over the cohort

    clients   F_k = loss of w over all rows,        w_k = w after local steps
    server    w <- w + server_lr sum of v_k (w_k - w)

t = 0 is FedAvg; t -> infinity serves the client of the cohort that fares worst; t < 0 turns away
from those that fit badly, such as clients with wrong labels. Exponents are relative to the largest
of the cohort, so that none overflows.
"""

from __future__ import annotations

import jax.numpy as jnp

from fljax.algorithms.client_losses import (
    Message,
    by_domain,
    domains_of,
    loss_pass,
    no_loss,
    reweighted,
)
from fljax.algorithms.fedavg import fedavg
from fljax.algorithms.optimizer_arguments import defaults_of, hyperparameters
from fljax.core.algorithm import Algorithm, AlgorithmSpec, Contribution
from fljax.core.gradients import LocalTask


def term(
    t: float = 1.0,
    client_lr: float = 0.1,
    server_lr: float = 1.0,
    *,
    weighting: str = "examples",
    **options,
) -> AlgorithmSpec:
    """Returns TERM over clients.

    Args:
      t: The tilt; 0 is FedAvg.
      client_lr: Learning rate of the clients.
      server_lr: Learning rate of the server.
      weighting: p_k: "examples" weights a client by its rows, "uniform" counts clients alike.
      **options: Further arguments of `fedavg`.

    Raises:
      TypeError, ValueError: As `fedavg`.

    Example:
      >>> algorithms.term(t=2.0, client_lr=0.1).hparams
      {'client_lr': 0.1, 'server_lr': 1.0, 't': 2.0}
    """
    options.setdefault("name", "term")
    plain = fedavg(client_lr, server_lr, weighting=weighting, **options)

    build_fedavg = plain.build

    def build(task: LocalTask, hp) -> Algorithm:
        algorithm = build_fedavg(task, hp)
        clients = domains_of("clients", task.population)

        def report(loss, job):
            exponent = hp["t"] * loss
            return {
                "exponent": by_domain(clients, exponent, jnp.ones_like(exponent), job)
            }, exponent

        def broadcast(server, aggregates) -> Message:
            found = aggregates["exponent"]
            largest = jnp.where(found.count > 0, found.mean(), -jnp.inf).max()
            return Message(
                algorithm.variables(server), jnp.where(jnp.isfinite(largest), largest, 0)
            )

        def weigh(largest, exponent, update: Contribution, job):
            del job
            return update.weight * jnp.exp(jnp.minimum(exponent - largest, 0)), {}

        losses = loss_pass(task, algorithm.variables, report, clients.number)
        return algorithm._replace(
            passes=(losses, reweighted(algorithm.passes[0], broadcast, weigh)),
            init_client=no_loss,
        )

    values = {**plain.hparams, **hyperparameters("term", {"t": t})}
    return plain._replace(build=build, hparams=values, defaults=defaults_of(term))
