"""Colluders that send what the mean and the spread of updates say: ALIE, inner products."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.scipy.special import ndtri

from fljax.core.values import NON_NEGATIVE, Field, Interval, checked
from fljax.robustness.arguments import check_count, check_number
from fljax.robustness.attack import Attack
from fljax.robustness.attacks.links import seen_as, together
from fljax.robustness.stacks import counted, mean_of

__all__ = ["alie", "ipm"]

_SEEN = ("honest", "attackers")


def alie(
    z: float | jax.Array | None = None,
    ddof: int = 0,
    sees: str = "honest",
    of: str = "updates",
) -> Attack:
    """Sends mean - z std of the updates, coordinate by coordinate: a little is enough.

    Baruch et al. 2019 (arXiv:1902.06156). Without z it is the largest that hides among the honest:
    of n updates and m attackers s = floor(n / 2 + 1) - m honest ones must support it, and

        z = Phi^-1((n - m - s) / (n - m))

    counted in each round. Attackers in the majority need nobody, and take s = 1, so that z is
    finite; beside a single honest update z is 0. The paper's attackers estimate mean and std of
    their own updates, before they change them (`sees="attackers"`); later work lets them see the
    honest ones. The paper's code divides by the count (ddof = 0). Karimireddy et al. 2022
    (arXiv:2006.09365) take ddof = 1, and so does ByzFL 0.0.11, which sends mean + z std of what it
    is given.

    The papers' code sees gradients, of which updates are the opposites: their mean minus a
    deviation (`of="gradients"`) is the mean of updates plus one. It matters: in the published
    matrix of BENCHMARKS.md, without buckets, RFA ends at 48 % under the one and at 83 % under the
    other.

    Args:
      z: Any number, such as the 1.5 of the paper's experiments; may be traced. None for the largest
        of the round.
      ddof: 0 or 1, what is taken off the count under the standard deviation.
      sees: "honest" or "attackers": whose updates the colluders know.
      of: "updates" or "gradients", of which updates are the opposites.

    Raises:
      ValueError: For a z that is no number, another ddof, or other `sees` or `of`.

    Example:
      >>> attack = alie(1.5)  # for simulate(..., pipeline=Pipeline(cohort=attack.cohort, ...))
      >>> round(float(largest_z(jnp.float32(50), jnp.float32(12))), 2)
      0.34
    """
    if z is not None:
        check_number("z", z)
    check_count("ddof", ddof, Interval(0, 1))
    checked("sees", sees, Field(None, str, _SEEN))

    def send(stack, honest, hostile, cohort):
        known = honest if sees == "honest" else hostile
        mean = mean_of(stack, known)
        count = counted(known)
        spread = mean_of(jnp.square(stack - mean), known)
        std = jnp.sqrt(spread * (count / jnp.maximum(count - ddof, 1)))
        size, bad = counted(cohort.valid), counted(hostile)
        return mean - (largest_z(size, bad) if z is None else z) * std

    return Attack(cohort=(together(seen_as(of, send)),))


def largest_z(size: jax.Array, bad: jax.Array) -> jax.Array:
    """Returns the z of Baruch et al. 2019 for n updates, of which m are attackers', as floats."""
    good = size - bad
    supporters = jnp.maximum(jnp.floor(size / 2 + 1) - bad, 1)
    share = (good - supporters) / jnp.maximum(good, 1)
    return jnp.where(good > 1, ndtri(jnp.where(good > 1, share, 0.5)), 0)


def ipm(epsilon: float | jax.Array = 0.1) -> Attack:
    """Sends -epsilon x the mean of the honest updates: inner product manipulation.

    Xie et al. 2019 (arXiv:1903.03936). With a small epsilon attackers are as near as honest ones,
    and the mean of all points the wrong way once m epsilon > n - m. ByzFL 0.0.11 calls it tau.

    Args:
      epsilon: At least 0; may be traced.

    Raises:
      ValueError: For an epsilon below 0.

    Example:
      >>> attack = ipm(0.5)  # for simulate(..., pipeline=Pipeline(cohort=attack.cohort, ...))
      >>> len(attack.cohort), len(attack.uplink)
      (1, 0)
    """
    check_number("epsilon", epsilon, NON_NEGATIVE)
    return Attack(
        cohort=(together(lambda stack, honest, *rest: -epsilon * mean_of(stack, honest)),)
    )
