"""FedMGDA+: the server steps where all clients gain, along the shortest mean of their updates.

Hu et al. 2022, "Federated learning meets multi-objective optimization" (arXiv:2006.11489),
Algorithm 1, with g_i = w - w_i after local steps:

    g_i <- g_i / |g_i|
    lambda = argmin |sum of lambda_i g_i|^2  over the simplex with |lambda_i - lambda0_i| <= epsilon
    w <- w - server_lr sum of lambda_i g_i

lambda0 are the clients' weights. epsilon = 0 is FedAvg of normalized updates (of plain ones with
normalize_updates=False), epsilon = 1 gives no client a priority (MGDA). A client that inflates its
update gains nothing by it. The step is no longer than server_lr, whatever the clients' rate, and
shrinks to nothing where no step serves all.

The server holds all updates of a cohort, spread over the devices, and finds lambda from their
products on the devices. (The authors' code solves for lambda on the host, by CVXOPT.)
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from fljax.algorithms.fedavg import fedavg
from fljax.algorithms.optimizer_arguments import defaults_of, hyperparameters
from fljax.core.algorithm import Algorithm, AlgorithmSpec
from fljax.core.gradients import LocalTask
from fljax.core.settings import ALGORITHM
from fljax.core.transforms import Cohort
from fljax.core.values import checked

# Most steps of the search for lambda, each of which moves two of its entries.
_MOST_STEPS = 10_000


def fedmgda(
    epsilon: float = 0.1,
    client_lr: float = 0.1,
    server_lr: float = 1.0,
    *,
    normalize_updates: bool = True,
    weighting: str = "examples",
    **options,
) -> AlgorithmSpec:
    """Returns FedMGDA+.

    Args:
      epsilon: How far a client's weight may be from lambda0, 0 to 1.
      client_lr: Learning rate of the clients.
      server_lr: Learning rate of the server: the longest step where updates are normalized.
      normalize_updates: Whether all updates get the length 1; False is FedMGDA.
      weighting: lambda0: "examples" weights a client by its rows, "uniform" counts clients alike.
      **options: Further arguments of `fedavg`.

    Raises:
      TypeError, ValueError: As `fedavg`.

    Example:
      >>> algorithms.fedmgda(epsilon=0.5).hparams
      {'client_lr': 0.1, 'server_lr': 1.0, 'epsilon': 0.5}
    """
    field = ALGORITHM["normalize_updates"]._replace(optional=False)
    checked("normalize_updates", normalize_updates, field)
    options.setdefault("name", "fedmgda")
    plain = fedavg(client_lr, server_lr, weighting=weighting, **options)

    build_fedavg = plain.build

    def build(task: LocalTask, hp) -> Algorithm:
        epsilon = hp["epsilon"]

        def combine(stack: jax.Array, cohort: Cohort) -> jax.Array:
            products = _products(stack, cohort.axis_name)
            if normalize_updates:
                lengths = jnp.sqrt(jnp.diagonal(products))
                scale = jnp.where(lengths > 0, 1 / jnp.where(lengths > 0, lengths, 1), 0)
                stack, products = stack * scale[:, None], products * jnp.outer(scale, scale)
            first = cohort.weights / jnp.maximum(cohort.weights.sum(), jnp.finfo(stack.dtype).tiny)
            low = jnp.maximum(first - epsilon, 0)
            high = jnp.where(cohort.valid, jnp.minimum(first + epsilon, 1), 0)
            weights = shortest(products, first.astype(stack.dtype), low, high)
            return (stack * weights[:, None]).sum(0)

        return build_fedavg(task, hp)._replace(combine=combine)

    values = {**plain.hparams, **hyperparameters("fedmgda", {"epsilon": epsilon})}
    return plain._replace(build=build, hparams=values, defaults=defaults_of(fedmgda))


def _products(stack: jax.Array, axis_name: str) -> jax.Array:
    """Returns [P, P], the inner products of updates whose parameters are spread over devices."""
    return jax.lax.psum(jnp.matmul(stack, stack.T, precision="highest"), axis_name)


def shortest(products: jax.Array, first: jax.Array, low: jax.Array, high: jax.Array) -> jax.Array:
    """Returns the weights of the shortest mean of vectors, each weight within its bounds.

    Weight moves between the two vectors that most violate the conditions of optimality, as in
    sequential minimal optimization (Keerthi et al. 2001), until rounding is all that is left.

    Args:
      products: [P, P] inner products of the vectors.
      first: [P] weights to start from, which sum up to 1.
      low, high: [P] bounds, around `first`.

    Example:
      >>> products = jnp.diag(jnp.array([1.0, 3.0]))
      >>> shortest(products, jnp.array([0.5, 0.5]), jnp.zeros(2), jnp.ones(2)).tolist()
      [0.75, 0.25]
    """
    epsilon = jnp.finfo(products.dtype).eps
    diagonal = jnp.diagonal(products)

    def pair(weights, slopes):
        # each slope is as good as its own terms: a long vector blurs those of short ones little
        blur = 2 * epsilon * (jnp.abs(products) @ weights)
        lows = jnp.where(weights < high, slopes + blur, jnp.inf)
        highs = jnp.where(weights > low, slopes - blur, -jnp.inf)
        gains, gives = jnp.argmin(lows), jnp.argmax(highs)
        return gains, gives, highs[gives] > lows[gains]

    def goes_on(state):
        weights, slopes, steps = state
        *_, violates = pair(weights, slopes)
        return violates & (steps < _MOST_STEPS)

    def move(state):
        weights, slopes, steps = state
        gains, gives, _ = pair(weights, slopes)
        squares = diagonal[gains] + diagonal[gives]
        bend = jnp.maximum(squares - 2 * products[gains, gives], epsilon * squares)
        best = (slopes[gives] - slopes[gains]) / bend
        room = jnp.minimum(high[gains] - weights[gains], weights[gives] - low[gives])
        by = jnp.minimum(best, room)
        # a bound that is met is met exactly, or the pair would be chosen again
        gained = jnp.where(by < high[gains] - weights[gains], weights[gains] + by, high[gains])
        given = jnp.where(by < weights[gives] - low[gives], weights[gives] - by, low[gives])
        weights = weights.at[gains].set(gained).at[gives].set(given)
        return weights, products @ weights, steps + 1

    start = first, products @ first, jnp.int32(0)
    return jax.lax.while_loop(goes_on, move, start)[0]
