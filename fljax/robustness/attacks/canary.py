"""Canary clients: they send directions drawn at random, by which an audit measures privacy."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from fljax.core.canaries import SEED, direction, is_included
from fljax.core.values import FACTOR, POSITIVE
from fljax.robustness.arguments import check_count, check_number
from fljax.robustness.attack import Attack
from fljax.robustness.attacks.links import alone

__all__ = ["canary"]


def canary(
    norm: float | jax.Array, seed: int | jax.Array = 0, chance: float | jax.Array = 1.0
) -> Attack:
    """Sends norm x the direction of (seed, client) in place of the update, in all rounds.

    Andrew et al. 2023 (arXiv:2302.03098): `fljax.audits.bounds.canaries` looks for the directions
    in what is released, and estimates epsilon. They do as little harm as noise of their norm. What
    protects messages stands behind: a mechanism of privacy clips canaries like everybody else, so
    that they have its clip norm where `norm` is as large (the official code sends 10,000).

    With a chance below 1 each canary is sent or left out for good, by a coin of (seed, client): who
    is left out sends zeros, which to a sum is as if the client were not there. Audits of one run
    (arXiv:2305.08846) ask for 1/2.

    Args:
      norm: Of what is sent, above 0; may be traced.
      seed: Of directions and coins, whole, from 0 to 2^24 - 1; may be traced.
      chance: How likely a canary is sent, above 0 and at most 1; may be traced.

    Raises:
      ValueError: For a number out of its range.

    Example:
      >>> job = fljax.core.algorithm.blank_job(None)._replace(attacker=jnp.bool_(True))
      >>> sent, _ = canary(3.0).uplink[0].encode(jnp.zeros(1000), (), job, None)
      >>> round(float(jnp.linalg.norm(sent)), 4)
      3.0
    """
    check_number("norm", norm, POSITIVE)
    check_count("seed", seed, SEED)
    check_number("chance", chance, FACTOR)

    def change(update, job, key):
        sent = jnp.where(is_included(seed, job.client, chance), norm, 0)
        own = direction(seed, job.client, update)
        return jax.tree.map(lambda leaf: sent * leaf, own)

    return Attack(uplink=(alone(change),))
