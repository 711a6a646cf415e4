"""Bulyan: updates that Krum takes one after another, and means of what lies near their median.

El Mhamdi, Guerraoui and Rouault 2018, "The hidden vulnerability of distributed learning in
Byzantium" (arXiv:1802.07927). Of n updates that arrived, up to f of them hostile,

    S = n - 2 f updates: each time the one that Krum takes of those that are left
    v[c] = the mean of the n - 4 f values of S at coordinate c that are nearest to their median

where the median is a value of S, the lower one of two in the middle, and of two values that are as
near the smaller one counts. Clients count alike. Krum's scores are anew those among the updates
that are left, whose nearest n' - f - 2 others count, at least one. The code that the authors
published later averages several updates at each choice, and chooses 2 less.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from fljax.core.transforms import Aggregator, Cohort
from fljax.core.values import NON_NEGATIVE
from fljax.robustness.aggregators.krum import krum_scores, nearest_first
from fljax.robustness.arguments import check_count, too_few
from fljax.robustness.networks import by_columns, ordered
from fljax.robustness.reports import REJECTIONS, rejections
from fljax.robustness.stacks import square_distances

__all__ = ["bulyan"]


def bulyan(f: Any) -> Aggregator:
    """Returns the rule that trims what several choices of Krum hold, coordinate by coordinate.

    It reports as rejected the updates that are not chosen.

    Args:
      f: How many updates may be hostile, with n >= 4 f + 3; may be traced.

    Raises:
      ValueError: If it is no number of updates.

    References: arXiv:1802.07927.

    Example:
      >>> bulyan(f=2).problem(10)
      'bulyan needs at least 4 f + 3 = 11 updates, and there may be 10'
    """
    check_count("f", f, NON_NEGATIVE)

    def apply(stack: jax.Array, cohort: Cohort, state: tuple):
        count = cohort.valid.sum()
        size = jnp.maximum(count - 2 * f, 1).astype(jnp.int32)
        kept = _chosen(square_distances(stack, cohort), cohort.valid, f, size)
        nearest = jnp.maximum(size - 2 * f, 1).astype(jnp.int32)

        def of_columns(columns: jax.Array) -> jax.Array:
            return _mean_near_median(jnp.where(kept[:, None], columns, jnp.inf), size, nearest)

        return by_columns(of_columns, stack), state, rejections(kept, cohort)

    problem = too_few("bulyan", "4 f + 3", 4 * f + 3)
    return Aggregator("stack", apply, reports=REJECTIONS, weighs=False, problem=problem)


def _chosen(distances: jax.Array, valid: jax.Array, f: Any, size: jax.Array) -> jax.Array:
    """Returns bool[P], the updates that Krum takes one after another."""
    neighbours = nearest_first(distances)

    def choose(number, kept):
        best = jnp.argmin(krum_scores(neighbours, valid & ~kept, f))
        return kept.at[best].set(True)

    return jax.lax.fori_loop(0, size, choose, jnp.zeros_like(valid))


def _mean_near_median(columns: jax.Array, size: jax.Array, nearest: jax.Array) -> jax.Array:
    """Returns [d], the mean of the values of each column that are nearest to its median.

    Args:
      columns: [P, d], infinite in rows that do not count.
      size: int32[], how many rows count.
      nearest: int32[], how many values of them are averaged.
    """
    rising = ordered(columns, range(len(columns)))
    median = rising[(size - 1) // 2]
    row = jnp.arange(len(columns))[:, None]
    # those nearest to the median lie side by side: each smaller value yields to the one that
    # stands `nearest` places behind it as long as that is nearer
    behind = rising[jnp.minimum(row[:, 0] + nearest, len(columns) - 1)]
    yields = (median - rising > behind - median) & (row < size - nearest)
    first = yields.sum(0)
    return jnp.where((row >= first) & (row < first + nearest), rising / nearest, 0).sum(0)
