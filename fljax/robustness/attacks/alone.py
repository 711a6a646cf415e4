"""Attacks of single clients on what they send: flipped, random, or scaled updates."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from fljax.core.transforms import CohortLink
from fljax.core.values import NON_NEGATIVE, Field, checked
from fljax.robustness.arguments import check_number
from fljax.robustness.attack import Attack
from fljax.robustness.attacks.links import alone, parties, replaced

__all__ = ["gaussian_like", "noise", "scaling", "sign_flip"]


def sign_flip(scale: float | jax.Array = 1.0) -> Attack:
    """Sends the update with its sign flipped: -scale x update.

    The bit flipping of Karimireddy et al. 2021 (arXiv:2012.10333), with scale = 1. ByzFL 0.0.11
    sends minus the mean of the honest updates under this name, which `ipm(1.0)` does.

    Args:
      scale: At least 0; may be traced.

    Raises:
      ValueError: For a scale below 0.

    Example:
      >>> job = fljax.core.algorithm.blank_job(None)._replace(attacker=jnp.bool_(True))
      >>> sign_flip(2.0).uplink[0].encode(jnp.array([1.0, -3.0]), (), job, None)[0].tolist()
      [-2.0, 6.0]
    """
    check_number("scale", scale, NON_NEGATIVE)

    def change(update, job, key):
        return jax.tree.map(lambda leaf: -scale * leaf, update)

    return Attack(uplink=(alone(change),))


def noise(std: float | jax.Array, added: bool = False) -> Attack:
    """Sends independent Gaussian numbers of mean 0 instead of the update.

    The Gaussian attack of Blanchard et al. 2017 (arXiv:1703.02757), who use std = 200 on gradients.

    Args:
      std: Standard deviation of each coordinate, at least 0; may be traced.
      added: Whether they are added to the update instead.

    Raises:
      ValueError: For a std below 0, or `added` that is neither True nor False.

    Example:
      >>> job = fljax.core.algorithm.blank_job(None)._replace(attacker=jnp.bool_(True))
      >>> sent, _ = noise(3.0).uplink[0].encode(jnp.zeros(10_000), (), job, jax.random.key(0))
      >>> round(float(sent.std()), 1)
      3.0
    """
    check_number("std", std, NON_NEGATIVE)
    checked("added", added, Field(None, bool))

    def change(update, job, key):
        drawn = gaussian_like(update, std, key)
        return jax.tree.map(jnp.add, update, drawn) if added else drawn

    return Attack(uplink=(alone(change),))


def gaussian_like(update, std: float | jax.Array, key: jax.Array):
    """Returns a tree of independent Gaussian numbers in the shapes of an update."""
    leaves, structure = jax.tree.flatten(update)
    drawn = [
        std * jax.random.normal(jax.random.fold_in(key, number), leaf.shape, leaf.dtype)
        for number, leaf in enumerate(leaves)
    ]
    return jax.tree.unflatten(structure, drawn)


def scaling(factor: float | jax.Array | None = None) -> Attack:
    """Sends factor x update, so that a mean with others keeps what the attacker has learned.

    Model replacement of Bagdasaryan et al. 2020 (arXiv:1807.00459), whose factor is n / eta: the
    number of clients over the server's learning rate, for one attacker among clients that count
    alike. Without a factor attackers know how much of the round they are: each sends its update
    times (sum of all weights) / (sum of attackers' weights), so that the weighted mean of all is
    that of the attackers plus what honest ones add to it.

    Args:
      factor: Any number; may be traced. None for that of the round; then the whole cohort's
        updates are held at once.

    Raises:
      ValueError: For a factor that is no number.

    Example:
      >>> job = fljax.core.algorithm.blank_job(None)._replace(attacker=jnp.bool_(True))
      >>> scaling(10.0).uplink[0].encode(jnp.array([1.0, -3.0]), (), job, None)[0].tolist()
      [10.0, -30.0]
    """
    if factor is None:
        return Attack(cohort=(CohortLink(_to_the_whole),))
    check_number("factor", factor)

    def change(update, job, key):
        return jax.tree.map(lambda leaf: factor * leaf, update)

    return Attack(uplink=(alone(change),))


def _to_the_whole(stack, cohort, state, key):
    """Scales attackers' updates to the weight of the whole cohort."""
    _, hostile = parties(cohort)
    own = (cohort.weights * hostile).sum()
    factor = cohort.weights.sum() / jnp.where(own > 0, own, 1)
    return replaced(stack, cohort, factor * stack), state
