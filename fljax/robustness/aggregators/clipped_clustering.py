"""Clipped clustering: updates are clipped, and the larger of two clusters is averaged.

Li, Ngai and Voigt 2023, "An experimental study of Byzantine-robust aggregation schemes in federated
learning" (arXiv:2302.07173). Updates are clipped to the median of the norms of all updates so far,
those of this round among them. Clusters are merged by average linkage of 1 - cosine until two are
left, and the rule is the mean of the larger one; of two that are equally large, of that with the
first update of the cohort. Clients count alike.

An update of zeros has the cosine 0 to all. The paper keeps norms without end, here the latest ones
stay. The authors' code clips to 100,000 at most, for which the paper has no number.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from fljax.core.transforms import Aggregator, Cohort
from fljax.core.values import COUNT, Field, checked
from fljax.robustness.arguments import too_few
from fljax.robustness.reports import REJECTIONS, rejections
from fljax.robustness.stacks import (
    clip_factors,
    directions,
    inner_products,
    mean_of,
    median_of,
    norms,
)

__all__ = ["Norms", "clipped_clustering", "larger_cluster"]


class Norms(NamedTuple):
    """The norms of the latest updates of all rounds.

    Attributes:
      values: [history], infinity where there is none yet.
      held: int32[], how many there are.
      place: int32[], where the next one goes.
    """

    values: jax.Array
    held: jax.Array
    place: jax.Array


def clipped_clustering(history: int = 10_000) -> Aggregator:
    """Returns the rule that clips updates and averages the larger of two clusters.

    Args:
      history: How many norms are kept; those of a round count in the order of its cohort.

    Raises:
      ValueError: If it is no whole number above 0.

    References: arXiv:2302.07173.

    Example:
      >>> rule = clipped_clustering(history=3)
      >>> rule.init(None).values.tolist(), int(rule.init(None).held)
      ([inf, inf, inf], 0)
    """
    history = checked("history", history, Field(None, int, COUNT))

    def init(params) -> Norms:
        unknown = jnp.full(history, jnp.inf, jnp.result_type(float))
        return Norms(unknown, jnp.int32(0), jnp.int32(0))

    def apply(stack: jax.Array, cohort: Cohort, past: Norms):
        lengths = norms(stack, cohort)
        past = _with(past, lengths, cohort.valid)
        kept = larger_cluster(1 - _cosines(stack, cohort), cohort.valid)
        bound = median_of(past.values, jnp.arange(history) < past.held)
        weights = jnp.where(kept, clip_factors(lengths, bound), 0)
        value = weights.sum() / jnp.maximum(kept.sum(), 1) * mean_of(stack, weights)
        return value.astype(stack.dtype), past, rejections(kept, cohort)

    # of two clusters of one nothing says which is the honest one
    problem = too_few("clipped_clustering", "3", 3)
    return Aggregator("stack", apply, init, REJECTIONS, weighs=False, problem=problem)


def larger_cluster(distances: jax.Array, valid: jax.Array) -> jax.Array:
    """Returns bool[P], who is in the larger of two clusters by average linkage.

    Clusters at the least mean distance of their members are merged until two are left; of equal
    distances the first pair in the cohort's order, of equal sizes the cluster of the first member.

    Args:
      distances: [P, P], symmetric.
      valid: bool[P], who is there.

    Example:
      >>> points = jnp.array([5.0, 1.0, 0.0, 6.0, 7.0])
      >>> distances = jnp.abs(points[:, None] - points[None])
      >>> larger_cluster(distances, jnp.ones(5, bool)).tolist()
      [True, False, False, True, True]
    """
    places = jnp.arange(len(valid))
    pairs = valid[:, None] & valid[None] & (places[:, None] != places[None])

    def merge(step, carry):
        apart, sizes, clusters = carry
        # the first of two merged places stands for both, the other for nobody
        first, second = jnp.divmod(jnp.argmin(apart), len(valid))
        both = sizes[first] * apart[first] + sizes[second] * apart[second]
        both /= sizes[first] + sizes[second]
        apart = apart.at[first].set(both).at[:, first].set(both)
        apart = apart.at[second].set(jnp.inf).at[:, second].set(jnp.inf)
        sizes = sizes.at[first].add(sizes[second]).at[second].set(0)
        return apart, sizes, jnp.where(clusters == second, first, clusters)

    start = jnp.where(pairs, distances, jnp.inf), valid.astype(distances.dtype), places
    _, sizes, clusters = jax.lax.fori_loop(0, jnp.maximum(valid.sum() - 2, 0), merge, start)
    return valid & (clusters == jnp.argmax(sizes))


def _cosines(stack: jax.Array, cohort: Cohort) -> jax.Array:
    units = directions(stack, cohort)
    cosines = jnp.clip(inner_products(units, units, cohort), -1, 1)
    return (cosines + cosines.T) / 2  # a product of matrices may round the two differently


def _with(past: Norms, lengths: jax.Array, valid: jax.Array) -> Norms:
    """Returns the norms with those of a round among them, in place of the oldest."""
    history, number = len(past.values), valid.sum(dtype=jnp.int32)
    order = jnp.cumsum(valid)
    latest = valid & (order > number - history)
    # what lies beyond the end is dropped
    places = jnp.where(latest, (past.place + order - 1) % history, history)
    values = past.values.at[places].set(lengths.astype(past.values.dtype), mode="drop")
    held = jnp.minimum(past.held + number, history)
    return Norms(values, held, (past.place + number) % history)
