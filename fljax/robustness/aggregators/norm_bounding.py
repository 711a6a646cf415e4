"""Norm bounding: no update is longer than a norm, whatever rule comes behind.

Sun, Kairouz, Suresh and McMahan 2019, "Can you really backdoor federated learning?"
(arXiv:1911.07963): update_i / max(1, |update_i| / norm), and then their weighted mean.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from fljax.core.transforms import Cohort
from fljax.core.values import POSITIVE
from fljax.robustness.aggregators.mixing import Mixing
from fljax.robustness.arguments import check_number
from fljax.robustness.stacks import clip_factors, norms

__all__ = ["norm_bound", "within"]

# Key of the record: the share of updates that were longer.
CLIPPED = "robustness/clipped"


def norm_bound(norm: Any) -> Mixing:
    """Returns the mixing that scales updates which are longer than a norm down to it.

    Args:
      norm: The largest norm of an update; may be traced.

    Raises:
      ValueError: If the norm is not above 0.

    Example:
      >>> norm_bound(2.0).reports
      ('robustness/clipped',)
    """
    check_number("norm", norm, POSITIVE)

    def apply(stack: jax.Array, cohort: Cohort, state: tuple):
        stack, reports = within(norm, stack, norms(stack, cohort), cohort)
        return stack, cohort, state, reports

    return Mixing(apply, reports=(CLIPPED,))


def within(
    bound: jax.Array | float, stack: jax.Array, lengths: jax.Array, cohort: Cohort
) -> tuple[jax.Array, dict]:
    """Returns the stack with no row longer than a bound, and what is told of it.

    Args:
      bound: The largest norm.
      stack: float[P, d].
      lengths: float[P], the norms of its rows.
      cohort: The cohort.
    """
    longer = cohort.valid & (lengths > bound)
    number = jnp.result_type(float)
    reports = {CLIPPED: (longer.astype(number), cohort.valid.astype(number))}
    return stack * clip_factors(lengths, bound)[:, None].astype(stack.dtype), reports
