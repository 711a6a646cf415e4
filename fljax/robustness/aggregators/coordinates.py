"""Rules that take each coordinate by itself: the median, and the mean without its extremes.

Yin, Chen, Ramchandran and Bartlett 2018, "Byzantine-robust distributed learning: towards optimal
statistical rates" (arXiv:1803.01498), Definitions 1 and 2. Clients count alike. Columns are sorted
by a network (`fljax.robustness.networks`); how many updates arrived is known on the device alone,
so that places where nobody is are filled with infinities.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp

from fljax.core.transforms import Aggregator, Cohort
from fljax.core.values import NON_NEGATIVE, Interval
from fljax.robustness.arguments import check_count, check_number, too_few
from fljax.robustness.networks import by_columns, ordered

__all__ = ["median", "trimmed_mean"]

_SHARE = Interval(0, 0.5, high_open=True)
# Of a product of a share and a count with 32 bits, relative to it.
_ROUNDING = 2.0**-21


def median() -> Aggregator:
    """Returns the rule that takes the median of each coordinate.

    Of an even number of updates it is the mean of the two in the middle, as Definition 1 has it.

    References: arXiv:1803.01498.

    Example:
      >>> cohort = fljax.core.transforms.Cohort(
      ...     weights=jnp.ones(4), valid=jnp.array([True, True, True, False]),
      ...     clients=jnp.arange(4), round=jnp.int32(0), axis_name="devices",
      ... )
      >>> stack = jnp.array([[1.0, 9.0], [2.0, -1e30], [30.0, 8.0], [0.0, 0.0]])
      >>> median().apply(stack, cohort, ())[0].tolist()
      [2.0, 8.0]
    """

    def apply(stack: jax.Array, cohort: Cohort, state: tuple):
        valid, size = cohort.valid, len(stack)
        count, absent = valid.sum(), jnp.cumsum(~valid)
        # of the absent one half is below all others and one above: the middle stays where it is
        half = (size - count) // 2
        fill = jnp.where(absent <= half, -jnp.inf, jnp.inf).astype(stack.dtype)
        fill = jnp.where(count > 0, fill, 0)
        middle = [size // 2 - 1, size // 2] if size > 1 else [0, 0]
        low, high = ((half + rank - middle[0] > 0) for rank in ((count - 1) // 2, count // 2))

        def rule(block):
            least, most = ordered(jnp.where(valid[:, None], block, fill[:, None]), middle)
            # halves first, since a sum may be too large
            return jnp.where(low, most, least) / 2 + jnp.where(high, most, least) / 2

        return by_columns(rule, stack), state

    # the median of two is their mean
    return Aggregator("stack", apply, weighs=False, problem=too_few("median", "3", 3))


def trimmed_mean(share: Any = None, *, f: Any = None) -> Aggregator:
    """Returns the rule that takes the mean of each coordinate without its extremes.

    Of n updates the floor(share n) smallest and as many of the largest are left out, or f and f,
    but never all: of 2 f and fewer the middle one or two are kept.

    Args:
      share: Of the updates, at either end, from 0 to below 1/2; may be traced. A product with n
        that misses a whole number by a rounding counts as that number.
      f: In its place the number of updates at either end, such as that of attackers; may be traced.

    Raises:
      ValueError: If a number is out of range, or not exactly one of the two is given.

    References: arXiv:1803.01498.

    Example:
      >>> rule = trimmed_mean(0.25)
      >>> cohort = fljax.core.transforms.Cohort(
      ...     weights=jnp.ones(4), valid=jnp.ones(4, bool), clients=jnp.arange(4),
      ...     round=jnp.int32(0), axis_name="devices",
      ... )
      >>> rule.apply(jnp.array([[1.0], [3.0], [-1e30], [70.0]]), cohort, ())[0].tolist()
      [2.0]
      >>> rule.problem(3)
      'trimmed_mean(0.25) leaves nobody out of fewer than 4 updates, and there may be 3'
    """
    if (share is None) == (f is None):
        raise ValueError(
            "trimmed_mean takes either a share of the updates at either end, or their number: "
            "trimmed_mean(0.1) or trimmed_mean(f=2)."
        )
    if f is None:
        check_number("share", share, _SHARE)
    else:
        check_count("f", f, NON_NEGATIVE)

    def left_out(count):
        if f is not None:
            return f
        return jnp.floor(jnp.asarray(share) * count * (1 + _ROUNDING))

    def apply(stack: jax.Array, cohort: Cohort, state: tuple):
        valid, count = cohort.valid, cohort.valid.sum()
        ends = jnp.minimum(left_out(count), jnp.maximum(count - 1, 0) // 2)
        ranks = jnp.arange(len(stack))
        kept = (ranks >= ends) & (ranks < count - ends)
        share_of_each = (1 / jnp.maximum(count - 2 * ends, 1)).astype(stack.dtype)

        def rule(block):
            rows = ordered(jnp.where(valid[:, None], block, jnp.inf), range(len(stack)))
            # shares first, since a sum may be too large
            return jnp.where(kept[:, None], rows * share_of_each, 0).sum(0)

        return by_columns(rule, stack), state

    def problem(count: int) -> str | None:
        if f is not None:
            needs = 2 * f + 1
            text = f"trimmed_mean(f={f}) needs at least 2 f + 1 = {needs} updates"
            return None if count >= needs else f"{text}, and there may be {count}"
        least = math.ceil(1 / (share * (1 + _ROUNDING))) if share else 0
        if count >= least:
            return None
        return (
            f"trimmed_mean({share:g}) leaves nobody out of fewer than {least} updates, and there "
            f"may be {count}"
        )

    return Aggregator("stack", apply, weighs=False, problem=problem)
