"""Colluders that go as far as the spread of honest updates hides them: Min-Max and Min-Sum.

Both send mean - gamma p, along a direction p, with the largest gamma that a bound on distances to
the honest updates allows. With p of length 1, x_i - mean = c_i and b_i = <c_i, p>, the square of a
distance is |c_i|^2 + 2 gamma b_i + gamma^2, so that the largest gamma is a root, and no search for
it is needed.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from fljax.core.transforms import Cohort
from fljax.core.values import Field, checked
from fljax.robustness.attack import Attack
from fljax.robustness.attacks.links import seen_as, together
from fljax.robustness.stacks import (
    directions,
    inner_products,
    mean_of,
    norms,
    square_distances,
    square_norms,
)

__all__ = ["min_max", "min_sum", "unit"]


def min_max(direction: str = "std", of: str = "updates") -> Attack:
    """Sends the farthest update no farther from any honest one than two honest ones are apart.

        max_i |mean - gamma p - x_i| <= max_ij |x_i - x_j|

    Shejwalkar and Houmansadr 2021 (NDSS, "Manipulating the Byzantine"), without knowledge of the
    aggregator. Their search for gamma by halved steps ends within 1e-5 below the largest, and never
    above twice where it begins (10, 30 or 50 in their code); here it is the largest itself.

    Args:
      direction: p is minus the "unit" vector of the mean, minus its "sign", or minus the "std" of
        each coordinate, scaled to length 1, which gamma makes up for.
      of: "updates", or "gradients" as in their code, of which updates are the opposites: then minus
        the "std" is plus that of updates, and the other directions are the same.

    Raises:
      ValueError: For another direction or `of`.

    Example:
      >>> attack = min_max("unit")  # simulate(..., pipeline=Pipeline(cohort=attack.cohort, ...))
      >>> len(attack.cohort)
      1
    """
    towards = _direction(direction)

    def send(stack, honest, hostile, cohort):
        mean, centred = _centred(stack, honest)
        away = unit(towards(mean, centred), cohort)
        pairs = square_distances(stack, cohort._replace(valid=honest))
        bound = jnp.where(honest[:, None] & honest[None], pairs, 0).max()
        # |c - gamma away|^2 = bound, written so that no digits cancel
        along = inner_products(centred, away[None], cohort)[:, 0]
        room = jnp.maximum(bound - square_norms(centred, cohort), 0)
        root = jnp.sqrt(along * along + room)
        against = along < 0
        gamma = jnp.where(against, room / jnp.where(against, root - along, 1), root + along)
        return mean + jnp.where(honest, gamma, jnp.inf).min() * away

    return Attack(cohort=(together(seen_as(of, send)),))


def min_sum(direction: str = "std", bound: str = "max", of: str = "updates") -> Attack:
    """Sends the farthest update whose distances to honest ones sum to no more than an honest one's.

        sum_i |mean - gamma p - x_i|^2 <= max_i sum_j |x_i - x_j|^2

    Shejwalkar and Houmansadr 2021 (NDSS). Their code takes the smallest of these sums, not the
    largest (`bound="min"`). Either way what is sent is as far from the mean as the honest update
    that has the sum: of sums of squares about a mean both sides have the same part.

    Args:
      direction: As for `min_max`.
      bound: "max" or "min", the sum of which honest update bounds it.
      of: As for `min_max`.

    Raises:
      ValueError: For another direction, bound or `of`.

    Example:
      >>> attack = min_sum("unit")  # simulate(..., pipeline=Pipeline(cohort=attack.cohort, ...))
      >>> len(attack.cohort)
      1
    """
    towards = _direction(direction)
    checked("bound", bound, Field(None, str, ("max", "min")))

    def send(stack, honest, hostile, cohort):
        mean, centred = _centred(stack, honest)
        lengths = norms(centred, cohort)
        if bound == "max":
            gamma = jnp.where(honest, lengths, 0).max()
        else:
            gamma = jnp.where(honest, lengths, jnp.inf).min()
        return mean + gamma * unit(towards(mean, centred), cohort)

    return Attack(cohort=(together(seen_as(of, send)),))


def unit(vector: jax.Array, cohort: Cohort) -> jax.Array:
    """Returns [d], a vector scaled to length 1 over all devices; zero of zero."""
    return directions(vector[None], cohort)[0]


def _centred(stack: jax.Array, honest: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns ([d] the mean of the honest updates, [P, d] what they differ by from it)."""
    mean = mean_of(stack, honest)
    return mean, jnp.where(honest[:, None], stack - mean, 0)


def _direction(name: str) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """Returns (mean, differences from it) -> the direction of a name, of any length."""
    known: dict[str, Callable] = {
        "unit": lambda mean, centred: -mean,
        "sign": lambda mean, centred: -jnp.sign(mean),
        "std": lambda mean, centred: -jnp.sqrt(mean_of(centred * centred, jnp.ones(len(centred)))),
    }
    checked("direction", name, Field(None, str, tuple(known)))
    return known[name]
