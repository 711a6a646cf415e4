"""Centered clipping: updates are clipped around what the server made of those of the last round.

Karimireddy, He and Jaggi 2021, "Learning from history for Byzantine robust optimization"
(arXiv:2012.10333), (AGG): with v the aggregate of the round before, zero at first,

    v <- v + mean of (x_i - v) min(1, tau / |x_i - v|)

once or several times; clients count alike. However large an update is, it moves v by tau / n. What
is hidden below tau in one round adds up over rounds unless honest clients agree with one another,
which is what momentum on the clients is for.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from fljax.core.transforms import Aggregator, Cohort
from fljax.core.values import POSITIVE
from fljax.robustness.arguments import check_count, check_number
from fljax.robustness.stacks import clip_factors, mean_of, norms, share_of, whole, zeros_like_update

__all__ = ["centered_clipping"]


def centered_clipping(tau: Any, iterations: int = 1) -> Aggregator:
    """Returns the rule that clips updates around the aggregate of the round before.

    Args:
      tau: The largest norm of what is left of x_i - v; may be traced.
      iterations: How often v moves in a round. The paper's experiments take 1.

    Raises:
      ValueError: If a number is out of range.

    References: arXiv:2012.10333.

    Example:
      >>> rule = centered_clipping(tau=1.0)
      >>> rule.weighs, rule.init({"w": jnp.ones((2, 3))}).tolist()
      (False, [0.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    """
    check_number("tau", tau, POSITIVE)
    check_count("iterations", iterations)

    def apply(stack: jax.Array, cohort: Cohort, state: jax.Array):
        count = jnp.maximum(cohort.valid.sum(), 1)

        def step(_, center):
            scale = clip_factors(norms(stack, cohort, center), tau)
            kept = jnp.where(cohort.valid, scale, 0)
            # the mean of kept (x - v), in one pass over the stack
            return center + kept.sum() / count * (mean_of(stack, kept) - center)

        start = share_of(state, cohort, stack.shape[1])
        center = jax.lax.fori_loop(0, iterations, step, start)
        return center, whole(center, cohort, len(state))

    return Aggregator("stack", apply, zeros_like_update, weighs=False)
