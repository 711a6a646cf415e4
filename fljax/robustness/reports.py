"""Reports of rules that reject updates: how many, and how many of them wrongly."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from fljax.core.transforms import Cohort

__all__ = ["REJECTIONS", "rejections"]

# The share of updates that a rule rejects, that of honest ones which it rejects, and that of
# attackers which it keeps.
REJECTIONS = ("robustness/rejected", "robustness/false_positives", "robustness/false_negatives")


def rejections(kept: jax.Array, cohort: Cohort) -> dict[str, tuple[jax.Array, jax.Array]]:
    """Returns what a rule reports of the updates that it keeps, {name: (value[P], weight[P])}.

    Who is hostile is known to the simulator alone: where it knows of nobody, the shares of wrong
    decisions have no weight.

    Args:
      kept: bool[P], which updates the rule uses; places where nobody is do not matter.
      cohort: The cohort, in whose order reports are.

    Example:
      >>> there = jnp.array([True, True, True, False])
      >>> cohort = Cohort(there, there, None, None, None, jnp.array([False, True, True, False]))
      >>> found = rejections(jnp.array([True, True, False, False]), cohort)
      >>> for name, (value, weight) in found.items():
      ...     print(name, float(value.sum() / weight.sum()))
      robustness/rejected 0.3333333432674408
      robustness/false_positives 0.0
      robustness/false_negatives 0.5
    """
    valid, hostile = cohort.valid, cohort.attackers
    if hostile is None:
        honest = hostile = jnp.zeros_like(valid)
    else:
        honest, hostile = valid & ~hostile, valid & hostile
    chosen = ((valid & ~kept, valid), (honest & ~kept, honest), (hostile & kept, hostile))
    number = jnp.result_type(float)
    return {
        name: (wrong.astype(number), of.astype(number))
        for name, (wrong, of) in zip(REJECTIONS, chosen, strict=True)
    }
