"""Adaptive zeroing and clipping: bounds of updates follow quantiles of their norms over rounds.

As `robust_aggregator` of TensorFlow Federated has them, in front of a weighted mean: zeroing first,
then clipping, which takes a zeroed update for one of norm 0. A quantile q is estimated by the
geometric method of Andrew et al. 2021 (arXiv:1905.03871), without noise: with b the share of the
updates of a round whose norm is at most C, where clients count alike,

    C <- C exp(-learning_rate (b - q))

so that C rises while fewer than q of the norms are below it. Each round uses the C of the rounds
before it. A round in which nobody took part leaves C as it is.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp

from fljax.core.transforms import Cohort
from fljax.core.values import NON_NEGATIVE, POSITIVE, Interval
from fljax.robustness.aggregators.mixing import Mixing
from fljax.robustness.aggregators.norm_bounding import CLIPPED, within
from fljax.robustness.arguments import check_number
from fljax.robustness.reports import REJECTIONS, rejections
from fljax.robustness.stacks import norms

__all__ = ["adaptive_clipping", "adaptive_zeroing"]

# Keys of the record: the bounds of a round.
CLIP_NORM, ZEROING_NORM = "robustness/clip_norm", "robustness/zeroing_norm"
# C stays within e^30, about 10^13, of where it began.
_FARTHEST = 30.0
_SHARE = Interval(0, 1)
_LN_10 = math.log(10.0)


def adaptive_zeroing(
    quantile: Any = 0.98,
    multiplier: Any = 2.0,
    increment: Any = 1.0,
    initial: Any = 10.0,
    learning_rate: Any = _LN_10,
) -> Mixing:
    """Returns the mixing that zeroes updates with a coordinate far above those of the others.

    The norm of an update is its largest coordinate, and its bound is multiplier x C + increment. An
    update that is zeroed still counts as one, of zeros; it is reported as rejected.

    Args:
      quantile: q, of the updates' norms.
      multiplier, increment: How far above the quantile an update is zeroed.
      initial: C at first.
      learning_rate: How fast C moves.

    All may be traced.

    Raises:
      ValueError: If a number is out of range.

    Example:
      >>> adaptive_zeroing().reports[-1]
      'robustness/zeroing_norm'
    """
    check_number("multiplier", multiplier, POSITIVE)
    check_number("increment", increment, NON_NEGATIVE)
    _check_quantile(quantile, initial, learning_rate)

    def apply(stack: jax.Array, cohort: Cohort, state: jax.Array):
        largest = jax.lax.pmax(jnp.abs(stack).max(1), cohort.axis_name)
        estimate = _estimate(state, initial)
        bound = multiplier * estimate + increment
        kept = largest <= bound
        reports = rejections(kept, cohort) | _told(ZEROING_NORM, bound, cohort)
        state = _moved(state, largest <= estimate, cohort, quantile, learning_rate)
        return jnp.where(kept[:, None], stack, 0), cohort, state, reports

    return Mixing(apply, _start, reports=(*REJECTIONS, ZEROING_NORM))


def adaptive_clipping(quantile: Any = 0.8, initial: Any = 1.0, learning_rate: Any = 0.2) -> Mixing:
    """Returns the mixing that scales updates down to a quantile of the updates' norms.

    Args:
      quantile: q, of the updates' norms.
      initial: C at first, the largest norm in the first round.
      learning_rate: How fast C moves.

    All may be traced.

    Raises:
      ValueError: If a number is out of range.

    Example:
      >>> adaptive_clipping(quantile=0.5).reports
      ('robustness/clipped', 'robustness/clip_norm')
    """
    _check_quantile(quantile, initial, learning_rate)

    def apply(stack: jax.Array, cohort: Cohort, state: jax.Array):
        lengths, bound = norms(stack, cohort), _estimate(state, initial)
        stack, reports = within(bound, stack, lengths, cohort)
        state = _moved(state, lengths <= bound, cohort, quantile, learning_rate)
        return stack, cohort, state, reports | _told(CLIP_NORM, bound, cohort)

    return Mixing(apply, _start, reports=(CLIPPED, CLIP_NORM))


def _start(params: Any) -> jax.Array:
    return jnp.zeros((), jnp.result_type(float))


def _estimate(state: jax.Array, initial: jax.Array | float) -> jax.Array:
    """Returns C; the state is the logarithm of what it is of its first value."""
    return initial * jnp.exp(state)


def _moved(state: jax.Array, below: jax.Array, cohort: Cohort, quantile, rate) -> jax.Array:
    """Returns the state after a round in which some updates were below the estimate, bool[P]."""
    share = (cohort.valid & below).sum() / jnp.maximum(cohort.valid.sum(), 1)
    moved = jnp.clip(state - rate * (share - quantile), -_FARTHEST, _FARTHEST)
    return jnp.where(cohort.valid.any(), moved, state).astype(state.dtype)


def _told(name: str, bound: jax.Array, cohort: Cohort) -> dict[str, tuple[jax.Array, jax.Array]]:
    there = cohort.valid.astype(bound.dtype)
    return {name: (bound * there, there)}


def _check_quantile(quantile: Any, initial: Any, learning_rate: Any) -> None:
    check_number("quantile", quantile, _SHARE)
    check_number("initial", initial, POSITIVE)
    check_number("learning_rate", learning_rate, POSITIVE)
