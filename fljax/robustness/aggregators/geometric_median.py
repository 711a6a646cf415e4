"""RFA: the geometric median of updates, approximated by a few weighted means.

Pillutla, Kakade and Harchaoui 2022, "Robust aggregation for federated learning" (arXiv:1912.13445),
the smoothed Weiszfeld algorithm. With a_i the weights of the clients,

    v <- the mean of x_i by the weights a_i / max(smoothing, |v - x_i|)

several times, from the weighted mean of all updates on, as the authors' code begins and ends: as
soon as the sum of a_i |v - x_i| changes by less than a share of itself, v is the result. The code
of Karimireddy et al. 2022 (arXiv:2006.09365) begins at zero instead.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from fljax.core.transforms import Aggregator, Cohort
from fljax.core.values import NON_NEGATIVE, POSITIVE, Field, checked
from fljax.robustness.arguments import check_count, check_number, is_traced, too_few
from fljax.robustness.stacks import mean_of, norms

__all__ = ["rfa"]

# Distances are told in it, so that neither they nor what is divided by them leaves the floats.
_UNIT = 2.0**64


def rfa(
    iterations: Any = 3, smoothing: Any = 1e-6, tolerance: Any = 1e-6, start: str = "mean"
) -> Aggregator:
    """Returns the rule that approximates the geometric median, by the clients' weights.

    Args:
      iterations: How often v moves, at most. From the weighted mean on, which hostile clients pull
        as far as they like, an iteration leaves h / (1 - h) of that distance where theirs is the
        share h of all weights: of 3 of 16 who send A, 3 iterations leave some A / 350, and 8 some
        A / 540,000. Where A may be any number, begin at zero, or put norm_bound before it. May
        be traced, as the next two.
      smoothing: The least distance that counts, above 0.
      tolerance: The least relative change after which v moves on; 0 for all iterations. It is one
        of a sum that hostile clients make as large as A.
      start: "mean" or "zero", where v begins. From zero on updates pull by their directions,
        however long they are.

    Raises:
      ValueError: If a number is out of range, or for another start.

    References: arXiv:1912.13445.

    Example:
      >>> rfa().weighs, rfa(iterations=8).needs
      (True, 'stack')
    """
    check_count("iterations", iterations)
    check_number("smoothing", smoothing, POSITIVE)
    check_number("tolerance", tolerance, NON_NEGATIVE)
    checked("start", start, Field(None, str, ("mean", "zero")))

    most = iterations.astype(jnp.int32) if is_traced(iterations) else int(iterations)

    def apply(stack: jax.Array, cohort: Cohort, state: tuple):
        weights = cohort.weights.astype(stack.dtype)
        weights /= jnp.maximum(weights.sum(), jnp.finfo(stack.dtype).tiny)

        def move(number, carry):
            point, before, done = carry
            away = norms(stack, cohort, point, _UNIT)
            total = (weights * away).sum()
            done |= (number > 0) & (jnp.abs(before - total) < tolerance * total)
            nearer = mean_of(stack, weights / jnp.maximum(away, smoothing / _UNIT))
            return jnp.where(done, point, nearer), total, done

        first = mean_of(stack, weights) if start == "mean" else jnp.zeros_like(stack[0])
        carry = first, jnp.zeros((), stack.dtype), jnp.bool_(False)
        return jax.lax.fori_loop(0, most, move, carry)[0], state

    # that of two lies anywhere between them
    return Aggregator("stack", apply, problem=too_few("rfa", "3", 3))
