"""Measures of client drift in a round: norms of updates, and the norm of their mean.

A job's norm is of the update as the client made it, before the uplink; it comes from the same
reading that finds out whether the update is finite. The mean is of what arrived, before noise,
aggregator and server links; each of several clusters has its own. Where nothing on the uplink
changes updates, their weights are told as well, and `fljax/training/drift.py` has what follows. All
of it is the simulator's own view.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from fljax.core.algorithm import Aggregate
from fljax.core.trees import square_norm

PyTree = Any

NORM, WEIGHT, NORM_OF_MEAN = "drift/norm", "drift/weight", "drift/norm_of_mean"
SQUARE_OF_MEAN = "drift/square_of_mean"


def of_update(square: jax.Array, weight: PyTree, arrives_whole: bool) -> dict[str, jax.Array]:
    """Returns what a job tells of its update.

    Args:
      square: The squared norm.
      weight: Of the contribution.
      arrives_whole: Whether the uplink leaves updates alone.
    """
    told = {NORM: jnp.sqrt(square)}
    if arrives_whole and _is_one_number(weight):
        told[WEIGHT] = jnp.asarray(weight, square.dtype)
    return told


def of_mean(total: Aggregate) -> dict[str, jax.Array]:
    """Returns the norm of the mean update; of several clusters, what is told of all their means.

    That is the weighted mean of their norms, and that of the squares.
    """
    if total.count.ndim == 0:
        return {NORM_OF_MEAN: jnp.sqrt(square_norm(total.mean()))}
    squares = jax.vmap(lambda each: square_norm(each.mean()))(total)
    share = jax.tree.leaves(total.weight)[0] if _is_one_number(total.weight, 1) else total.count
    whole = jnp.where(share.sum() == 0, 1, share.sum())
    return {
        NORM_OF_MEAN: (share * jnp.sqrt(squares)).sum() / whole,
        SQUARE_OF_MEAN: (share * squares).sum() / whole,
    }


def _is_one_number(weight: PyTree, axes: int = 0) -> bool:
    leaves = jax.tree.leaves(weight)
    return len(leaves) == 1 and jnp.ndim(leaves[0]) == axes
