"""Krum and Multi-Krum: the updates whose nearest neighbours are nearest.

Blanchard, El Mhamdi, Guerraoui and Stainer 2017, "Machine learning with adversaries: Byzantine
tolerant gradient descent" (arXiv:1703.02757). Of n updates that arrived, up to f of them hostile,

    score of i = the sum of |x_i - x_j|^2 over the n - f - 2 others j that are nearest to x_i

Krum takes the update of the least score, Multi-Krum the mean of the m updates of the least scores;
of equal scores those that come first in the cohort. Clients count alike. Where fewer than f + 3
updates arrive, one neighbour counts. ByzFL 0.0.11 takes n - f - 1 neighbours, the paper n - f - 2.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fljax.core.transforms import Aggregator, Cohort
from fljax.core.values import NON_NEGATIVE
from fljax.robustness.arguments import check_count, is_traced, too_few
from fljax.robustness.reports import REJECTIONS, rejections
from fljax.robustness.stacks import mean_of, square_distances

__all__ = ["Neighbours", "krum", "krum_scores", "multi_krum", "nearest_first"]


def krum(f: Any) -> Aggregator:
    """Returns the rule that takes one update, that of the least score.

    Args:
      f: How many updates may be hostile, with n >= 2 f + 3; may be traced.

    Raises:
      ValueError: If it is no number of updates.

    References: arXiv:1703.02757.

    Example:
      >>> rule = krum(f=5)
      >>> rule.weighs, rule.problem(13), rule.problem(10)
      (False, None, 'krum needs at least 2 f + 3 = 13 updates, and there may be 10')
    """
    check_count("f", f, NON_NEGATIVE)

    def choose(scores: jax.Array, valid: jax.Array) -> jax.Array:
        return jnp.arange(len(scores)) == jnp.argmin(scores)

    combine = lambda stack, kept: stack[jnp.argmax(kept)]  # noqa: E731
    return _of_least_score(f, choose, combine, too_few("krum", "2 f + 3", 2 * f + 3))


def multi_krum(f: Any, m: Any = None) -> Aggregator:
    """Returns the rule that takes the mean of the updates of the least scores.

    Args:
      f: How many updates may be hostile, with n >= 2 f + 3; may be traced.
      m: How many are averaged, at most n - f, which it is unless said, as in the paper's
        experiments; of fewer updates that arrive all. It may be traced.

    Raises:
      ValueError: If one of them is no number of updates.

    References: arXiv:1703.02757.

    Example:
      >>> rule = multi_krum(f=1, m=3)
      >>> rule.weighs, rule.problem(4)
      (False, 'multi_krum needs at least 2 f + 3 = 5 updates, and there may be 4')
    """
    check_count("f", f, NON_NEGATIVE)
    if m is not None:
        check_count("m", m)

    def choose(scores: jax.Array, valid: jax.Array) -> jax.Array:
        most = jnp.maximum(valid.sum() - f, 1) if m is None else m
        return jnp.argsort(jnp.argsort(scores)) < most

    def combine(stack: jax.Array, kept: jax.Array) -> jax.Array:
        # what is not chosen might not be finite
        return mean_of(jnp.where(kept[:, None], stack, 0), kept)

    enough = too_few("multi_krum", "2 f + 3", 2 * f + 3)

    def problem(n: int) -> str | None:
        if enough is not None and (found := enough(n)):
            return found
        if m is None or is_traced(m) or is_traced(f) or m <= n - f:
            return None
        return (
            f"multi_krum averages m <= n - f updates, m = {m:g} are more than {n - f:g}, and the "
            f"hostile ones would be among them: there may be {n}, and f is {f:g}"
        )

    return _of_least_score(f, choose, combine, problem)


def _of_least_score(
    f: Any,
    choose: Callable[[jax.Array, jax.Array], jax.Array],
    combine: Callable[[jax.Array, jax.Array], jax.Array],
    problem: Callable[[int], str | None] | None,
) -> Aggregator:
    def apply(stack: jax.Array, cohort: Cohort, state: tuple):
        distances = square_distances(stack, cohort)
        there = cohort.valid & jnp.isfinite(jnp.diagonal(distances))
        kept = choose(krum_scores(nearest_first(distances), there, f), cohort.valid) & there
        return combine(stack, kept), state, rejections(kept, cohort)

    return Aggregator("stack", apply, reports=REJECTIONS, weighs=False, problem=problem)


class Neighbours(NamedTuple):
    """The places of a cohort as each of them sees them, nearest first.

    Attributes:
      distances: [P, P] squared distances, in rising order in each row.
      places: int32[P, P], whose they are.
    """

    distances: jax.Array
    places: jax.Array


def nearest_first(distances: jax.Array) -> Neighbours:
    """Sorts the squared distances [P, P] of each place; of equal ones the first place is first."""
    places = jnp.argsort(distances, axis=1)
    return Neighbours(jnp.take_along_axis(distances, places, axis=1), places)


def krum_scores(neighbours: Neighbours, among: jax.Array, f: Any) -> jax.Array:
    """Returns the score of each update among some of them, [P]; infinity of all others.

    Args:
      neighbours: Of all places.
      among: bool[P], which updates there are.
      f: How many of these may be hostile: the nearest |among| - f - 2 others count, at least one.
    """
    oneself = neighbours.places == jnp.arange(len(among))[:, None]
    others = among[neighbours.places] & ~oneself
    near = others & (jnp.cumsum(others, axis=1) <= jnp.maximum(among.sum() - f - 2, 1))
    scores = jnp.where(near, neighbours.distances, 0).sum(1)
    # whoever is there comes before whoever is not, however far from all others
    return jnp.where(among, jnp.minimum(scores, jnp.finfo(scores.dtype).max), jnp.inf)
