"""Merges models of FedDrift that serve each other's data about as well as their own.

The rule and the paper: `fljax.algorithms.feddrift`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

PyTree = Any
NEVER = jnp.iinfo(jnp.int32).max  # the step in which a model begins that there is not


class FedDriftState(NamedTuple):
    """The servers of K models, and what is known of them.

    Attributes:
      servers: Leaves [K, ...].
      weight: [K] how much weight trained each in the last round that anybody took part in.
      begun: int32[K] the time step in which each began: -1 for the first, NEVER of none.
      used: int32[K] the last step in which a client found it the best or began it.
      data: [K] weights of the clients that it was given, summed over time steps.
      step: int32, the last time step that began; -1 before the first.
      round: int32, the round to come.
    """

    servers: PyTree
    weight: jax.Array
    begun: jax.Array
    used: jax.Array
    data: jax.Array
    step: jax.Array
    round: jax.Array


def distances(losses: jax.Array, rows: jax.Array) -> jax.Array:
    """Returns [K, K], how much worse models are on each other's rows than on their own.

    Args:
      losses: [K, K] losses of each model (second axis), summed over the rows of each cluster.
      rows: [K] of the clusters.

    Returns:
      D, infinite on the diagonal and for clusters without rows.

    Example:
      >>> distances(jnp.array([[2.0, 6.0], [9.0, 3.0]]), jnp.array([2.0, 3.0])).tolist()
      [[inf, 2.0], [2.0, inf]]
    """
    mean = (losses / jnp.maximum(rows, 1)[:, None]).T
    worse = jnp.maximum(mean - jnp.diagonal(mean)[:, None], 0)
    known = (rows > 0) & (rows > 0)[:, None] & ~jnp.eye(len(rows), dtype=bool)
    return jnp.where(known, jnp.maximum(worse, worse.T), jnp.inf)


def merged(
    state: FedDriftState, apart: jax.Array, threshold: jax.Array
) -> tuple[FedDriftState, jax.Array]:
    """Returns the state after all models nearer than a threshold were merged, nearest first.

    Args:
      state: The state.
      apart: [K, K] distances, infinite where there is nothing to merge.
      threshold: delta.

    Returns:
      (state', int32[K] the model that each became a part of). The lower number of a pair stays.
    """
    count = len(apart)

    def goes_on(carry):
        return carry[1].min() < threshold

    def join(carry):
        state, apart, into = carry
        stays, goes = jnp.divmod(jnp.argmin(apart), count)
        total = state.data[stays] + state.data[goes]
        share = state.data[goes] / jnp.where(total > 0, total, 1)

        def average(leaf):
            if not jnp.issubdtype(leaf.dtype, jnp.inexact):
                return leaf
            both = leaf[stays] * (1 - share) + leaf[goes] * share
            return leaf.at[stays].set(both.astype(leaf.dtype))

        def added(leaf):
            return leaf.at[stays].add(leaf[goes]).at[goes].set(0)

        far = jnp.maximum(apart[stays], apart[goes])
        apart = apart.at[stays].set(far).at[:, stays].set(far)
        apart = apart.at[goes].set(jnp.inf).at[:, goes].set(jnp.inf)
        state = state._replace(
            servers=jax.tree.map(average, state.servers),
            weight=added(state.weight),
            begun=state.begun.at[goes].set(NEVER),
            used=state.used.at[goes].set(-1),
            data=added(state.data),
        )
        return state, apart, jnp.where(into == goes, stays, into).astype(into.dtype)

    start = state, apart, jnp.arange(count, dtype=jnp.int32)
    state, _, into = jax.lax.while_loop(goes_on, join, start)
    return state, into
