"""Optimal sampling: the larger a client's update is, the likelier it is sent.

Chen, Horvath and Richtarik 2020, "Optimal client sampling for federated learning"
(arXiv:2010.13723). All n clients of a cohort compute their updates U_i and tell the server the
norms u_i = w_i |U_i|, where w_i is a client's share in the mean. Each sends its update with
probability p_i, on its own; that of those that are sent,

    sum over the sent ones of (w_i / p_i) U_i,

estimates sum_i w_i U_i without bias, and has the least variance of all such p_i that sum to m if

    p_i = min(1, c u_i)                         with c so that they sum to m     (OCS, eq. 7)
    p_i = min(1, m u_i / sum u), and j times: those below 1 times
          (m - n + |I|) / sum of p over I       I: those below 1                 (AOCS, Algorithm 2)

where the second one takes sums alone, which secure aggregation can make. A round has two passes: in
the first clients train to find u_i, in the second those that send do it again, as no update is kept
between passes. They are the same updates unless training draws random numbers of its own, such as
dropout; the estimate has no bias in either case. Nothing waits for the decision. A client tells its
norm for nothing here; the paper counts one number.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from fljax.algorithms.fedavg import fedavg
from fljax.algorithms.optimizer_arguments import defaults_of, hyperparameters
from fljax.core.algorithm import Algorithm, AlgorithmSpec, Chosen, ClientPass, Job
from fljax.core.gradients import LocalTask
from fljax.core.settings import ALGORITHM
from fljax.core.trees import square_norm
from fljax.core.values import checked

PyTree = Any


def optimal_sampling(
    chosen: float = 10.0,
    client_lr: float = 0.1,
    server_lr: float = 1.0,
    *,
    adjustments: int | None = None,
    weighting: str = "examples",
    **options,
) -> AlgorithmSpec:
    """Returns FedAvg whose clients send their updates with the probabilities that suit them best.

    Args:
      chosen: m, how many clients of a cohort send their updates on average; all of them, where no
        more arrive.
      client_lr: Learning rate of the clients.
      server_lr: Learning rate of the server.
      adjustments: How often AOCS adjusts its probabilities, as 4 in the paper; None takes the
        optimal ones.
      weighting: "examples" weights a client by its rows, "uniform" counts clients alike.
      **options: Further arguments of `fedavg`.

    Raises:
      TypeError, ValueError: As `fedavg`; or for fewer clients than one.

    Example:
      >>> algorithms.optimal_sampling(chosen=5, client_lr=0.05).hparams
      {'client_lr': 0.05, 'server_lr': 1.0, 'chosen': 5.0}
    """
    options.setdefault("name", "optimal_sampling")
    plain = fedavg(client_lr, server_lr, weighting=weighting, **options)
    spec = sampling(plain, chosen, adjustments)
    return spec._replace(defaults=defaults_of(optimal_sampling))


def sampling(spec: AlgorithmSpec, chosen: float, adjustments: int | None = None) -> AlgorithmSpec:
    """Returns an algorithm whose clients send updates by optimal sampling.

    Args:
      spec: What clients do. Its first pass must send an "update" under one weight; what else it
        sends is averaged over those that send, as it is.
      chosen: How many clients of a cohort send on average.
      adjustments: Those of AOCS, or None for the optimal probabilities.

    Example:
      >>> from fljax.algorithms.optimal_sampling import sampling
      >>> sampling(algorithms.fedprox(mu=0.1), chosen=5).hparams["chosen"]
      5.0
    """
    checked("adjustments", adjustments, ALGORITHM["adjustments"])
    values = hyperparameters("optimal_sampling", {"chosen": chosen})
    build_spec = spec.build

    def build(task: LocalTask, hp) -> Algorithm:
        algorithm = build_spec(task, hp)
        first, *others = algorithm.passes
        count = hp["chosen"]

        def rule(stats, arrived):
            norms = jnp.where(arrived, stats["update_norm"], 0)
            if adjustments is None:
                chances = optimal_probabilities(norms, arrived, count)
            else:
                chances = adjusted_probabilities(norms, arrived, count, adjustments)
            chances = jnp.where(arrived.sum() <= count, arrived, chances)
            return drawn(chances, jnp.where(arrived, stats["update_weight"], 0), stats["lot"])

        # clients have the message already when they train again
        passes = (_measuring(first)._replace(select=rule), first._replace(broadcast=None), *others)
        return algorithm._replace(passes=passes)

    return spec._replace(build=build, hparams={**spec.hparams, **values})


def _measuring(first: ClientPass) -> ClientPass:
    """Returns the pass in which clients tell the norm and the weight of their update."""

    def start(message: PyTree, client_state: PyTree, job: Job):
        return client_state, first.start(message, client_state, job)

    def step(message: PyTree, carry, batch, job: Job):
        client_state, here = carry
        return client_state, first.step(message, here, batch, job)

    def finish(message: PyTree, carry, job: Job):
        client_state, here = carry
        sent, _, _ = first.finish(message, here, job)
        update = sent["update"]
        norm = jnp.sqrt(square_norm(update.value))
        weight = jnp.asarray(update.weight, norm.dtype)
        return {}, client_state, {"update_norm": weight * norm, "update_weight": weight}

    return first._replace(start=start, step=step, finish=finish)


def optimal_probabilities(norms: jax.Array, arrived: jax.Array, count: jax.Array) -> jax.Array:
    """Returns the probabilities, proportional to norms but at most 1, that sum to a number.

    Args:
      norms: float[P] weighted norms, 0 where nothing arrived.
      arrived: bool[P].
      count: m, at most as many as have arrived.

    Returns:
      float[P].

    Example:
      >>> norms = jnp.array([8.0, 1.0, 2.0, 1.0])
      >>> optimal_probabilities(norms, jnp.ones(4, bool), 2).tolist()
      [1.0, 0.25, 0.5, 0.25]
    """
    order = jnp.argsort(-norms)
    ordered = norms[order]
    tails = jnp.cumsum(ordered[::-1])[::-1]
    left = count - jnp.arange(len(norms))
    # of the largest ones, those that proportion among the rest would put at 1 or above
    certain = jnp.cumprod((left > 0) & (ordered * left >= tails)).astype(bool)
    rest = jnp.where(certain, 0, ordered)
    factor = _ratio(count - certain.sum(), rest.sum())
    chances = jnp.where(certain, 1, jnp.clip(rest * factor, 0, 1))
    chances = jnp.zeros_like(norms).at[order].set(chances)
    return jnp.where(arrived, chances, 0)


def adjusted_probabilities(
    norms: jax.Array, arrived: jax.Array, count: jax.Array, adjustments: int
) -> jax.Array:
    """Returns AOCS's probabilities: as `optimal_probabilities`, by sums alone, a few times over.

    Example:
      >>> norms = jnp.array([8.0, 1.0, 2.0, 1.0])
      >>> adjusted_probabilities(norms, jnp.ones(4, bool), 2, adjustments=1).tolist()
      [1.0, 0.25, 0.5, 0.25]
    """
    chances = jnp.clip(norms * _ratio(count, norms.sum()), 0, 1)
    for _ in range(adjustments):
        below = arrived & (chances < 1)
        total = jnp.where(below, chances, 0).sum()
        # the sum was m before any was cut to 1: nothing but rounding would shrink the others
        factor = jnp.maximum(_ratio(count - arrived.sum() + below.sum(), total), 1)
        chances = jnp.where(below, jnp.clip(chances * factor, 0, 1), chances)
    return jnp.where(arrived, chances, 0)


def drawn(chances: jax.Array, weights: jax.Array, lots: jax.Array) -> Chosen:
    """Draws each job on its own; updates are scaled so that their mean estimates that of all.

    Args:
      chances: float[P] probabilities.
      weights: float[P] of the updates in means, 0 where nothing arrived.
      lots: float[P] uniforms.

    Example:
      >>> lots = jnp.array([0.9, 0.3, 0.7, 0.8])
      >>> found = drawn(jnp.array([1.0, 0.5, 0.5, 0.5]), jnp.ones(4), lots)
      >>> found.kept.tolist(), found.scale[:2].tolist()
      ([True, True, False, False], [0.5, 1.0])
    """
    kept = lots < chances
    # their mean divides by the weights of those that are kept, the estimate by those of all
    share = _ratio(jnp.where(kept, weights, 0).sum(), weights.sum())
    return Chosen(kept, jnp.where(kept, _ratio(share, chances), 0))


def _ratio(above: jax.Array, below: jax.Array) -> jax.Array:
    """Returns a quotient, 0 where nothing is divided by."""
    return jnp.where(below > 0, above / jnp.where(below > 0, below, 1), 0)
