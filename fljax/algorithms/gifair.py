"""GIFAIR-FL: clients whose group fares worse than others take larger steps.

Yue, Nouiehed, Al Kontar 2023, "GIFAIR-FL: a framework for group and individual fairness in
federated learning" (arXiv:2108.02741). The objective is sum of p_k F_k + lam sum over pairs of
groups |L_i - L_j|, with L_i the mean loss of the clients A_i of group i, hence

    r_i = number of groups with a smaller L - number of groups with a larger one
    clients   w_k = w after local steps of SGD on (1 + lam r_i / (p_k |A_i|)) F_k,  k in A_i
    server    w <- w + server_lr sum of p_k (w_k - w)

lam = 0 is FedAvg. A group of each client alone is the paper's individual fairness. The paper asks
for lam < min p_k |A_i| / (number of groups - 1), which keeps all factors between 0 and 2. The bound
falls with the square of the number of clients, so that no one number serves all: unless lam is
given, it is half of the cohort's bound. A given one beyond it is warned of; where a cohort breaks
it, a factor stops at 0. Losses are those of the broadcast model on all rows, p_k, A_i and the order
those within the cohort; clients of weight 0 have no part.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fljax.algorithms.client_losses import (
    Message,
    by_domain,
    check_fair_among,
    counted,
    domains_of,
    in_domain,
    loss_pass,
)
from fljax.algorithms.fedavg import fedavg, job_weight
from fljax.algorithms.optimizer_arguments import defaults_of, hyperparameters
from fljax.core.algorithm import (
    Aggregate,
    Algorithm,
    AlgorithmSpec,
    ClientPass,
    Contribution,
    Facts,
)
from fljax.core.gradients import LocalTask


class Told(NamedTuple):
    """lam r_i / |A_i| of each group, and the sum of the clients' weights, which makes p_k."""

    push: jax.Array
    total: jax.Array


class Scaled(NamedTuple):
    """Local training, and what multiplies its gradients."""

    local: Any
    factor: jax.Array


def gifair(
    lam: float | None = None,
    client_lr: float = 0.1,
    server_lr: float = 1.0,
    *,
    fair_among: str = "clients",
    weighting: str = "examples",
    **options,
) -> AlgorithmSpec:
    """Returns GIFAIR-FL.

    Args:
      lam: Weight of the differences between groups; 0 is FedAvg. None is, in each round, half of
        the largest that the paper allows for such a cohort.
      client_lr: Learning rate of the clients.
      server_lr: Learning rate of the server.
      fair_among: "clients", or "groups", the first kind of the data set's groups of clients.
      weighting: p_k: "examples" weights a client by its rows, "uniform" counts clients alike.
      **options: Further arguments of `fedavg`.

    Raises:
      TypeError: As `fedavg`.
      ValueError: As `fedavg`, or for groups that the data do not have.

    Example:
      >>> algorithms.gifair(lam=0.01).hparams
      {'client_lr': 0.1, 'server_lr': 1.0, 'lam': 0.01}
    """
    check_fair_among(fair_among)
    options.setdefault("name", "gifair")
    plain = fedavg(client_lr, server_lr, weighting=weighting, **options)

    build_fedavg = plain.build

    def build(task: LocalTask, hp) -> Algorithm:
        algorithm = build_fedavg(task, hp)
        domains = domains_of(fair_among, task.population)
        clients = domains_of("clients", task.population)
        (local,) = algorithm.passes

        def report(loss, job):
            own = job_weight(weighting, job, loss)
            counts = counted(own)
            sent = {
                "losses": by_domain(domains, loss, counts, job),
                "total": Contribution(own, jnp.ones_like(own)),
            }
            if lam is None:
                sent["weights"] = by_domain(clients, own, counts, job)
            return sent, ()

        def broadcast(server, aggregates) -> Message:
            losses = aggregates["losses"]
            losses = jax.tree.map(lambda leaf: leaf[: domains.number], losses)
            total, known = aggregates["total"].sum, losses.weight > 0
            strength = (
                _half_of_bound(losses, aggregates["weights"], total) if lam is None else hp["lam"]
            )
            push = strength * ranks(losses.mean(), known) / jnp.where(known, losses.weight, 1)
            return Message(algorithm.variables(server), Told(push, total))

        def start(message: Message, client_state, job) -> Scaled:
            here = local.start(message.variables, client_state, job)
            own = job_weight(weighting, job, message.told.push)
            share = own / jnp.maximum(message.told.total, jnp.finfo(own.dtype).tiny)
            push = in_domain(domains, message.told.push, job)
            factor = 1 + push / jnp.where(share > 0, share, 1)
            return Scaled(here, jnp.maximum(factor, 0))

        def step(message: Message, carry: Scaled, batch, job) -> Scaled:
            (scaled,) = build_fedavg(_times(task, carry.factor), hp).passes
            return carry._replace(local=scaled.step(message.variables, carry.local, batch, job))

        def finish(message: Message, carry: Scaled, job):
            return local.finish(message.variables, carry.local, job)

        # of the weights of clients there are as many sums as clients, which are no fewer
        losses = loss_pass(task, algorithm.variables, report, clients if lam is None else domains)
        return algorithm._replace(passes=(losses, ClientPass(broadcast, start, step, finish)))

    def caution(hparams, facts: Facts) -> str | None:
        lam, bound = hparams.get("lam", 0.0), _usual_bound(facts, fair_among, weighting)
        if lam < bound:
            return None
        return (
            f"lam = {lam:g}: gifair asks for less than {bound:.2g} = min p_k |A_i| / (number of "
            f"{fair_among} - 1) in a usual cohort of these data. Beyond it the {fair_among} that "
            f"fare best stop training, and steps of others may grow {1 + lam / bound:,.0f}-fold. "
            "Leave lam out: it is half of each cohort's bound then."
        )

    values = {**plain.hparams, **hyperparameters("gifair", {}, lam=lam)}
    defaults = defaults_of(gifair)
    return plain._replace(build=build, hparams=values, defaults=defaults, caution=caution)


def _half_of_bound(losses: Aggregate, weights: Aggregate, total: jax.Array) -> jax.Array:
    """Returns half of what the paper allows for a cohort, or less where groups differ in size."""
    groups = losses.weight > 0
    share = jnp.where(weights.weight > 0, weights.mean(), jnp.inf).min() / total
    size = jnp.where(groups, losses.weight, jnp.inf).min()
    bound = share * size / jnp.maximum(groups.sum() - 1, 1)
    return jnp.where(jnp.isfinite(bound), bound / 2, 0)


def _usual_bound(facts: Facts, fair_among: str, weighting: str) -> float:
    """Returns the paper's bound on lam in a cohort like the population; infinity for one group."""
    weights = facts.client_weights
    if weights is None:
        weights = facts.rows if weighting == "examples" else np.sign(facts.rows)
    present = np.flatnonzero(weights * np.sign(facts.rows))
    cohort = min(facts.cohort_size, len(present))
    if fair_among == "clients":
        number, members = cohort, np.ones(len(present))
    else:
        _, group, sizes = np.unique(facts.groups[present], return_inverse=True, return_counts=True)
        number = min(cohort, len(sizes))
        members = np.maximum(sizes[group] * cohort / len(present), 1)
    if number < 2:
        return np.inf
    shares = weights[present] / (cohort * weights[present].mean())
    return float((shares * members).min() / (number - 1))


def ranks(losses: jax.Array, known: jax.Array) -> jax.Array:
    """Returns [D], of each known loss how many are smaller less how many are larger; else 0.

    Example:
      >>> ranks(jnp.array([3.0, 1.0, 0.0, 1.0]), jnp.array([True, True, False, True])).tolist()
      [2.0, -1.0, 0.0, -1.0]
    """
    ordered = jnp.sort(jnp.where(known, losses, jnp.inf))
    smaller = jnp.searchsorted(ordered, losses, side="left")
    larger = known.sum() - jnp.searchsorted(ordered, losses, side="right")
    return jnp.where(known, smaller - larger, 0).astype(losses.dtype)


def _times(task: LocalTask, factor: jax.Array) -> LocalTask:
    """Returns the task with gradients times a factor."""

    def gradient(params, model_state, batch, key):
        grads, sums, state = task.gradient(params, model_state, batch, key)
        return jax.tree.map(lambda g: g * factor.astype(g.dtype), grads), sums, state

    return task._replace(gradient=gradient)
