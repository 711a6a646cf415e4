"""Divide and conquer: outliers along the direction in which updates spread most are left out.

Shejwalkar and Houmansadr 2021, "Manipulating the Byzantine: optimizing model poisoning attacks and
defenses for federated learning" (NDSS 2021), Algorithm 2. In each iteration, of n updates,

    r = random coordinates of all, X = the updates at r, less their mean
    v = the top right singular vector of X
    s_i = <X_i, v>^2
    good = the n - c f updates with the lowest s_i

and the aggregate is the mean of the updates that are good in all iterations; clients count alike.

s_i is the square of the i-th entry of the top eigenvector of X X^T, times its eigenvalue: nothing
larger than [P, P] is decomposed, and devices meet in the sum of their products alone.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from fljax.core.transforms import Aggregator, Cohort
from fljax.core.values import COUNT, NON_NEGATIVE, POSITIVE
from fljax.robustness.arguments import check_count, check_number, is_traced, too_few
from fljax.robustness.reports import REJECTIONS, rejections
from fljax.robustness.stacks import inner_products, mean_of, over, random_columns

__all__ = ["dnc"]

# Of a product of two numbers with 32 bits, such as c f.
_ROUNDING = 1e-4


def dnc(f: Any, iterations: int = 1, subsample: int = 10_000, filter: Any = 1.5) -> Aggregator:
    """Returns the rule that leaves out updates that lie farthest along their main direction.

    Args:
      f: Number of attackers that it is for; may be traced.
      iterations: How many sets of coordinates are looked at.
      subsample: Coordinates in a set, b; all of them where there are not more.
      filter: c: in each iteration c f updates are left out, rounded up, above 0; may be traced.

    Raises:
      ValueError: If a number is out of range.

    Example:
      >>> dnc(f=2).problem(4)
      'dnc needs at least max(2, filter) f + 1 = 5 updates, and there may be 4'
    """
    check_count("f", f, NON_NEGATIVE)
    check_count("iterations", iterations)
    check_count("subsample", subsample, COUNT)
    check_number("filter", filter, POSITIVE)

    def apply(stack: jax.Array, cohort: Cohort, state: tuple):
        keeps = cohort.valid.sum() - jnp.ceil(filter * f - _ROUNDING)

        def good(key):
            scores = _scores(random_columns(key, stack, subsample, cohort), cohort)
            return cohort.valid & (_ranks(scores, cohort.valid) < keeps)

        kept = jax.lax.map(good, jax.random.split(cohort.key, iterations)).all(0)
        return mean_of(stack, kept), state, rejections(kept, cohort)

    # an honest majority, and an update that is left
    factor = filter if is_traced(filter) else max(2, filter)
    problem = too_few("dnc", "max(2, filter) f + 1", factor * f + 1)
    return Aggregator("stack", apply, reports=REJECTIONS, weighs=False, problem=problem)


def _scores(sample: jax.Array, cohort: Cohort) -> jax.Array:
    """Returns [P], how far updates lie along the direction in which they spread most."""
    # numbers whose squares overflow are brought to 1 first
    largest = jax.lax.pmax(jnp.abs(sample).max(), cohort.axis_name)
    sample = over(sample, largest)
    centred = jnp.where(cohort.valid[:, None], sample - mean_of(sample, cohort.valid), 0)
    _, vectors = jnp.linalg.eigh(inner_products(centred, centred, cohort))
    return vectors[:, -1] ** 2  # of the largest eigenvalue, which scales all scores alike


def _ranks(scores: jax.Array, valid: jax.Array) -> jax.Array:
    """Returns int[P], the places of scores in ascending order, of equal ones in cohort order."""
    return jnp.argsort(jnp.argsort(jnp.where(valid, scores, jnp.inf)))
