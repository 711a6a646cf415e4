"""The robust learning rate: steps go backwards where the signs of updates do not agree.

Ozdayi, Kantarcioglu and Gel 2021, "Defending against backdoors in federated learning with robust
learning rate" (arXiv:2007.03767), equation (3): the server's learning rate of coordinate i is

    eta_i = eta if |sum over clients of sign(x_i)| >= theta, else -eta

which here becomes the sign of the weighted mean's coordinate. Clients vote alike whatever they
weigh, and one whose coordinate is zero does not vote.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from fljax.core.transforms import Aggregator, Cohort
from fljax.core.values import NON_NEGATIVE
from fljax.robustness.arguments import check_number
from fljax.robustness.networks import by_columns
from fljax.robustness.stacks import mean_of

__all__ = ["robust_learning_rate"]


def robust_learning_rate(threshold: Any) -> Aggregator:
    """Returns the weighted mean, negated where too few clients agree on the sign.

    Args:
      threshold: theta, the majority in clients from which on a coordinate is learned; may be
        traced. The paper takes more than the number of attackers; 0 is the weighted mean.

    Raises:
      ValueError: If the threshold is out of range.

    References: arXiv:2007.03767.

    Example:
      >>> cohort = fljax.core.transforms.Cohort(
      ...     weights=jnp.ones(3), valid=jnp.ones(3, bool), clients=jnp.arange(3),
      ...     round=jnp.int32(0), axis_name="devices",
      ... )
      >>> stack = jnp.array([[1.0, 1.0], [2.0, 2.0], [3.0, -9.0]])
      >>> robust_learning_rate(3).apply(stack, cohort, ())[0].tolist()
      [2.0, 2.0]
    """
    check_number("threshold", threshold, NON_NEGATIVE)

    def apply(stack: jax.Array, cohort: Cohort, state: tuple):
        voters = cohort.valid.astype(stack.dtype)

        def rule(block):
            majority = jnp.abs(voters @ jnp.sign(block))
            mean = mean_of(block, cohort.weights)
            return jnp.where(majority >= threshold, mean, -mean)

        return by_columns(rule, stack), state

    def problem(count: int) -> str | None:
        if count >= threshold:
            return None
        return (
            f"robust_learning_rate({threshold:g}) learns from no fewer than {threshold:g} updates, "
            f"and there may be {count}"
        )

    return Aggregator("stack", apply, problem=problem)
