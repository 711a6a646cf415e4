"""TERM: the exponentials of the clients' losses are averaged, tilted to large or to small ones.

Li et al. 2021, "Tilted empirical risk minimization" (arXiv:2007.01162), with clients as the groups
of its section 4: the objective 1/t log(sum of p_k exp(t F_k)), whose gradient weights clients by

    v_k = p_k exp(t F_k) / sum of p_j exp(t F_j)    over the cohort

    clients   F_k = loss of w over all rows,        w_k = w after local steps
    server    w <- w + server_lr sum of v_k (w_k - w)

t = 0 is FedAvg; t -> infinity serves the client of the cohort that fares worst; t < 0 turns away
from those that fit badly, such as clients with wrong labels. Exponents are relative to the largest
of the cohort, so that none overflows. Should that client's update not arrive, the next ones decide:
an exponent too far below the largest to matter beside it is raised to where it can still be told
from others.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from fljax.algorithms.client_losses import (
    Message,
    by_domain,
    counted,
    domains_of,
    loss_pass,
    no_loss,
    reweighted,
)
from fljax.algorithms.fedavg import fedavg, job_weight
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
            counts = counted(job_weight(weighting, job, loss))
            return {"exponent": by_domain(clients, exponent, counts, job)}, exponent

        def broadcast(server, aggregates) -> Message:
            found = aggregates["exponent"]
            known = jnp.where(found.weight > 0, found.mean(), -jnp.inf)
            return Message(algorithm.variables(server), _tops(known))

        def weigh(tops, exponent, update: Contribution, job):
            del job
            return update.weight * jnp.exp(_raised(exponent, tops)), {}

        losses = loss_pass(task, algorithm.variables, report, clients)
        return algorithm._replace(
            passes=(losses, reweighted(algorithm.passes[0], broadcast, weigh)),
            init_client=no_loss,
        )

    values = {**plain.hparams, **hyperparameters("term", {"t": t})}
    return plain._replace(build=build, hparams=values, defaults=defaults_of(term))


def _far(dtype) -> float:
    """Returns how far below another an exponent is lost beside it, by the square of rounding."""
    return -2 * math.log(jnp.finfo(dtype).eps)


def _tops(exponents: jax.Array) -> jax.Array:
    """Returns [3], the largest exponent, the largest of those far below it, and so once more.

    Where there is none, it is -infinity; the largest of none is 0.
    """
    tops = [exponents.max()]
    for _ in range(2):
        below = exponents < tops[-1] - _far(exponents.dtype)
        tops.append(jnp.where(below, exponents, -jnp.inf).max())
    tops[0] = jnp.where(jnp.isfinite(tops[0]), tops[0], 0)
    return jnp.stack(tops)


def _raised(exponent: jax.Array, tops: jax.Array) -> jax.Array:
    """Returns an exponent relative to the largest; what is far below begins just so far below."""
    far = _far(tops.dtype)
    found = jnp.minimum(exponent - tops[0], 0)
    for level in (1, 2):
        relative = jnp.minimum(exponent - tops[level], 0) - level * far
        found = jnp.where(exponent < tops[level - 1] - far, relative, found)
    return jnp.maximum(found, -2.25 * far)
