"""Colluders that all send the update of one honest client, who thereby weighs too much."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from fljax.core.transforms import CohortLink
from fljax.robustness.arguments import check_count
from fljax.robustness.attack import Attack
from fljax.robustness.attacks.farthest import unit
from fljax.robustness.attacks.links import parties, replaced
from fljax.robustness.stacks import (
    inner_products,
    mean_of,
    over,
    share_of,
    whole,
    zeros_like_update,
)

__all__ = ["Watched", "mimic"]


class Watched(NamedTuple):
    """The colluders' knowledge of the honest clients.

    Attributes:
      rounds: int32, in how many rounds they have.
      mean: [p], of the honest updates.
      direction: [p], of length 1, along which honest updates vary most.
      target: int32, the client that they copied last while they learned; -1 before.
    """

    rounds: jax.Array
    mean: jax.Array
    direction: jax.Array
    target: jax.Array


def mimic(warmup: int | jax.Array = 1) -> Attack:
    """Sends the update of the honest client farthest along the direction of most variance.

    Karimireddy et al. 2022 (arXiv:2006.09365). In round t = 0, 1, ... of those in which colluders
    learn, with honest updates x_i and z random at first,

        mu  <- t / (t + 1) mu + 1 / (t + 1) mean_i x_i
        z   <- unit(t / (t + 1) z + 1 / (t + 1) unit(sum_i <x_i - mu, z> (x_i - mu)))
        all send x_i of the largest <x_i, z>

    as in their code, where a round is an iteration in which everybody takes part. After `warmup`
    such rounds they copy the client of the last one for good; in a round in which it is not among
    the honest ones, whoever of these has the largest <x_i, z>. Of ties the first in the cohort's
    order is taken. Rounds without attackers or without honest clients teach nothing.

    Args:
      warmup: Rounds in which they learn, at least 1; may be traced.

    Raises:
      ValueError: For a warmup below 1.

    Example:
      >>> link = mimic(warmup=10).cohort[0]
      >>> link.init({"w": jnp.zeros(3)}).direction.shape
      (3,)
    """
    check_count("warmup", warmup)

    def apply(stack, cohort, state, key):
        honest, hostile = parties(cohort)
        learned = _learn(stack, honest, cohort, state, key)
        learns = honest.any() & hostile.any() & (state.rounds < warmup)
        new = jax.tree.map(lambda new, old: jnp.where(learns, new, old), learned, state)
        direction = share_of(new.direction, cohort, stack.shape[1])
        along = inner_products(stack, direction[None], cohort)[:, 0]
        farthest = jnp.argmax(jnp.where(honest, along, -jnp.inf))
        new = new._replace(target=jnp.where(learns, cohort.clients[farthest], state.target))
        here = honest & (cohort.clients == new.target)
        copied = jnp.where(here.any(), jnp.argmax(here), farthest)
        return replaced(stack, cohort, stack[copied]), new

    def init(params):
        zeros = zeros_like_update(params)
        return Watched(jnp.int32(0), zeros, zeros, jnp.int32(-1))

    return Attack(cohort=(CohortLink(apply, init),))


def _learn(stack, honest, cohort, state: Watched, key) -> Watched:
    """Returns what colluders know after a round more."""
    size, dtype = state.mean.shape, state.mean.dtype

    def kept(share):
        return whole(share, cohort, size[0]).astype(dtype)

    known = jax.lax.cond(
        state.rounds > 0,
        lambda: state.direction,
        lambda: jax.random.normal(key, size, dtype),
    )
    old, mean = (share_of(vector, cohort, stack.shape[1]) for vector in (known, state.mean))
    before = state.rounds.astype(stack.dtype)
    mean = (before * mean + mean_of(stack, honest)) / (before + 1)
    centred = jnp.where(honest[:, None], stack - mean, 0)
    along = inner_products(centred, old[None], cohort)[:, 0]
    # scaled, since third powers of small updates would vanish
    along = over(along, jnp.abs(along).max())
    turned = unit(along @ centred, cohort)
    direction = unit(before * old + turned, cohort)
    # where updates do not vary they say nothing
    varies = jax.lax.psum((turned * turned).sum(), cohort.axis_name) > 0
    direction = jnp.where(varies, direction, unit(old, cohort))
    return state._replace(rounds=state.rounds + 1, mean=kept(mean), direction=kept(direction))
