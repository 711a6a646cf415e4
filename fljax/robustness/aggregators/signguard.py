"""SignGuard: updates of unusual length or of unusual signs are left out.

Xu, Huang, Song and Lan 2022, "Byzantine-robust federated learning through collaborative malicious
gradient filtering" (arXiv:2109.05872), Algorithm 2. With M the median of the norms,

    S1 = the updates with lower <= |g_i| / M <= upper
    S2 = the largest cluster, by mean shift, of the shares of signs that are +, 0 and - among
         random coordinates, a tenth of all
    g = the mean of g_i min(1, M / |g_i|) over those in S1 and S2

and clients count alike. Of the paper's variants this is the plain one, whose clusters are of signs
alone. The paper leaves the bandwidth of the mean shift open: it is chosen as the authors' code does
(see `mean_shift`). That code also takes neighbouring coordinates instead of random ones, and
divides each share by the largest of the cohort; here they are what the paper says.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from fljax.core.transforms import Aggregator, Cohort
from fljax.core.values import FACTOR, NON_NEGATIVE, POSITIVE
from fljax.robustness.arguments import check_number, is_traced, too_few
from fljax.robustness.mean_shift import largest_cluster
from fljax.robustness.reports import REJECTIONS, rejections
from fljax.robustness.stacks import (
    clip_factors,
    mean_of,
    median_of,
    norms,
    num_params,
    random_columns,
)

__all__ = ["signguard"]


def signguard(lower: Any = 0.1, upper: Any = 3.0, coordinates: float = 0.1) -> Aggregator:
    """Returns the rule that filters updates by their norms and signs, and clips the others.

    Args:
      lower: The least norm that is kept, over the median, below `upper`; may be traced.
      upper: The largest norm that is kept, over the median; may be traced.
      coordinates: The share of the coordinates whose signs are counted, drawn in each round.

    Raises:
      ValueError: If a number is out of range.

    Example:
      >>> signguard().weighs, signguard(upper=2.0).reports[0]
      (False, 'robustness/rejected')
    """
    check_number("lower", lower, NON_NEGATIVE)
    check_number("upper", upper, POSITIVE)
    check_number("coordinates", coordinates, FACTOR)
    if not (is_traced(lower) or is_traced(upper) or lower < upper):
        raise ValueError(
            f"lower = {lower:g} must be below upper = {upper:g}: signguard keeps updates whose "
            "norms over the median are between the two, and nobody's would be."
        )

    def apply(stack: jax.Array, cohort: Cohort, state: tuple):
        lengths = norms(stack, cohort)
        middle = median_of(lengths, cohort.valid)
        kept = cohort.valid & (lengths >= lower * middle) & (lengths <= upper * middle)
        kept &= largest_cluster(_sign_shares(stack, cohort, coordinates), cohort.valid)
        weights = jnp.where(kept, clip_factors(lengths, middle), 0)
        value = weights.sum() / jnp.maximum(kept.sum(), 1) * mean_of(stack, weights)
        return value, state, rejections(kept, cohort)

    # of two nobody is in a majority
    problem = too_few("signguard", "3", 3)
    return Aggregator("stack", apply, reports=REJECTIONS, weighs=False, problem=problem)


def _sign_shares(stack: jax.Array, cohort: Cohort, share: float) -> jax.Array:
    """Returns [P, 3], which shares of random coordinates are above zero, zero, and below."""
    total = num_params(stack, cohort)
    size = max(1, int(share * total))
    signs = jnp.sign(random_columns(cohort.key, stack, size, cohort))
    # as floating-point numbers, whose sums over rows are faster
    own = jnp.stack([jnp.maximum(signs, 0).sum(1), jnp.maximum(-signs, 0).sum(1)])
    above, below = jax.lax.psum(own, cohort.axis_name)
    return jnp.stack([above, size - above - below, below], axis=1) / size
