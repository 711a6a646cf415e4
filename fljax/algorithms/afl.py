"""AFL: the server looks for the mixture of domains that is worst for the model, which learns it.

Mohri et al. 2019, "Agnostic federated learning" (arXiv:1902.00146), Stochastic-AFL: a game between
the model w and the weights lambda of domains, which are clients or groups of clients:

    clients   F_k = loss of w over all rows,        w_k = w after local steps
    server    w <- w + server_lr sum of lambda_d mean over the clients of d of (w_k - w)
              lambda <- projection onto the simplex of lambda + lambda_lr (gradient: F_d, or 0)

What is evaluated is the mean of all iterates w, as in its theorem. With one local step on all rows,
it is the paper's; more steps are FedAvg's. Of domains without a client in the cohort nothing is
known: the step takes the mean under the lambda of the others, and the gradient is D / |cohort's
domains| times the losses that are known, unbiased as the paper's stochastic one. A domain whose
updates do not arrive (none is finite) counts as unknown: no weight goes where nothing comes from.
Lambda starts uniform, so that lambda_lr = 0 is FedAvg in which domains count alike.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fljax.algorithms.client_losses import (
    Message,
    by_domain,
    check_fair_among,
    counted,
    domains_of,
    in_domain,
    loss_pass,
    reweighted,
)
from fljax.algorithms.fedavg import fedavg, job_weight, zero_of
from fljax.algorithms.optimizer_arguments import defaults_of, hyperparameters
from fljax.core.algorithm import Aggregate, Algorithm, AlgorithmSpec, Contribution, Variables
from fljax.core.gradients import LocalTask
from fljax.core.precision import rounded, widened
from fljax.core.settings import ALGORITHM
from fljax.core.values import checked

PyTree = Any


class AflState(NamedTuple):
    """FedAvg's server, lambda [D], and the mean of the models after each of some rounds."""

    server: PyTree
    mixture: jax.Array
    mean: PyTree
    rounds: jax.Array


def afl(
    lambda_lr: float = 0.1,
    client_lr: float = 0.1,
    server_lr: float = 1.0,
    *,
    fair_among: str = "clients",
    average_iterates: bool = True,
    weighting: str = "examples",
    **options,
) -> AlgorithmSpec:
    """Returns AFL.

    Args:
      lambda_lr: Learning rate of the weights of domains.
      client_lr: Learning rate of the clients.
      server_lr: Learning rate of the server.
      fair_among: The domains: "clients", or "groups", the first kind of the data set's groups.
      average_iterates: Whether the mean of all models is evaluated, or the last one.
      weighting: How clients of one domain count: "examples" by their rows, "uniform" alike.
      **options: Further arguments of `fedavg`.

    Raises:
      TypeError: As `fedavg`.
      ValueError: As `fedavg`, or for groups that the data do not have.

    Example:
      >>> algorithms.afl(lambda_lr=0.01).hparams
      {'client_lr': 0.1, 'server_lr': 1.0, 'lambda_lr': 0.01}
    """
    check_fair_among(fair_among)
    field = ALGORITHM["average_iterates"]._replace(optional=False)
    checked("average_iterates", average_iterates, field)
    options.setdefault("name", "afl")
    plain = fedavg(client_lr, server_lr, weighting=weighting, **options)

    build_fedavg = plain.build

    def build(task: LocalTask, hp) -> Algorithm:
        algorithm = build_fedavg(task, hp)
        domains = domains_of(fair_among, task.population)

        def report(loss, job):
            return {"losses": by_domain(domains, loss, job_weight(weighting, job, loss), job)}, ()

        def broadcast(state: AflState, aggregates) -> Message:
            weight = aggregates["losses"].weight
            # of a client: lambda of its domain / weight of the domain in this cohort
            share = jnp.where(weight > 0, state.mixture / jnp.where(weight > 0, weight, 1), 0)
            return Message(algorithm.variables(state.server), share)

        def weigh(share, own, update: Contribution, job):
            del own
            heard = counted(update.weight)
            further = {"heard": by_domain(domains, jnp.ones_like(heard), heard, job)}
            return update.weight * in_domain(domains, share, job), further

        def server_update(state: AflState, aggregates, round) -> AflState:
            server = algorithm.server_update(state.server, aggregates, round)
            arrived = aggregates["update"].count > 0
            heard = aggregates["heard"].weight > 0
            mixture = _ascended(state.mixture, aggregates["losses"], heard, hp["lambda_lr"])
            if not average_iterates:
                return AflState(server, mixture, (), state.rounds)
            rounds = state.rounds + arrived
            share = arrived / jnp.maximum(rounds, 1)
            mean = jax.tree.map(
                lambda old, new: old + share.astype(old.dtype) * (new.astype(old.dtype) - old),
                state.mean,
                widened(algorithm.variables(server).params),
            )
            return AflState(server, mixture, mean, rounds)

        def init(variables: Variables) -> AflState:
            like = zero_of(variables.params)
            mixture = jnp.full(domains.number, 1 / domains.number, like.dtype)
            mean = widened(variables.params) if average_iterates else ()
            return AflState(algorithm.init(variables), mixture, mean, like)

        def variables(state: AflState) -> Variables:
            last = algorithm.variables(state.server)
            if not average_iterates:
                return last
            return last._replace(params=rounded(state.mean, last.params))

        losses = loss_pass(task, lambda state: algorithm.variables(state.server), report, domains)
        return algorithm._replace(
            init=init,
            passes=(losses, reweighted(algorithm.passes[0], broadcast, weigh, domains)),
            server_update=server_update,
            variables=variables,
        )

    values = {**plain.hparams, **hyperparameters("afl", {"lambda_lr": lambda_lr})}
    return plain._replace(build=build, hparams=values, defaults=defaults_of(afl))


def _ascended(
    mixture: jax.Array, losses: Aggregate, heard: jax.Array, rate: jax.Array
) -> jax.Array:
    """Returns lambda [D] after a step towards the domains heard of that have the largest losses."""
    known = ((losses.weight > 0) & heard).astype(mixture.dtype)
    scale = len(mixture) / jnp.maximum(known.sum(), 1)
    moved = projected(mixture + rate * scale * known * losses.mean())
    return jnp.where(known.any(), moved, mixture)


def projected(point: jax.Array) -> jax.Array:
    """Returns the point of the simplex nearest to a point [D] (Duchi et al. 2008).

    Example:
      >>> projected(jnp.array([0.5, 0.7, -1.0])).round(3).tolist()
      [0.4, 0.6, 0.0]
    """
    ordered = -jnp.sort(-point)
    above = (jnp.cumsum(ordered) - 1) / jnp.arange(1, len(point) + 1)
    last = jnp.sum(ordered > above) - 1
    return jnp.maximum(point - above[last], 0)
