"""Makes links of attackers: of what each sends alone, and of what colluders send together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from fljax.core.algorithm import Job
from fljax.core.transforms import Cohort, CohortLink, UplinkLink
from fljax.core.values import Field, checked
from fljax.robustness.attack import are_hostile, is_hostile

__all__ = ["alone", "of_attackers", "parties", "replaced", "seen_as", "together"]

PyTree = Any
Send = Callable[[jax.Array, jax.Array, jax.Array, Cohort], jax.Array]
_SEEN_AS = Field(None, str, ("updates", "gradients"))


def alone(change: Callable[[PyTree, Job, jax.Array], PyTree]) -> UplinkLink:
    """Returns the link by which each attacker sends something else than its update.

    Args:
      change: (update, job, key) -> what it sends, in the shapes of the update.

    Example:
      >>> link = alone(lambda update, job, key: -update)
      >>> job = fljax.core.algorithm.blank_job(None)._replace(attacker=jnp.bool_(True))
      >>> link.encode(jnp.ones(2), (), job, jax.random.key(0))[0].tolist()
      [-1.0, -1.0]
    """

    def encode(update, state, job, key):
        return of_attackers(job, change(update, job, key), update), state

    return UplinkLink(encode, lambda payload, state: payload)


def of_attackers(job: Job, sent: PyTree, update: PyTree) -> PyTree:
    """Returns what an attacker sends, and the update of a client that is none."""
    hostile = is_hostile(job)
    return jax.tree.map(
        lambda new, old: jnp.where(hostile, new.astype(old.dtype), old), sent, update
    )


def together(send: Send) -> CohortLink:
    """Returns the link by which colluders, who see all updates, send something else than theirs.

    Args:
      send: (stack [P, d], honest bool[P], hostile bool[P], cohort) -> what they send: [d] the same
        for all of them, or [P, d]. It is asked where somebody is honest and somebody hostile.

    Example:
      >>> link = together(lambda stack, honest, hostile, cohort: -stack)
      >>> there, hostile = jnp.array([True, True]), jnp.array([False, True])
      >>> cohort = Cohort(jnp.ones(2), there, jnp.arange(2), 0, "devices", hostile)
      >>> on_each = jax.vmap(lambda stack: link.apply(stack, cohort, (), None), axis_name="devices")
      >>> on_each(jnp.ones((1, 2, 3)))[0].tolist()
      [[[1.0, 1.0, 1.0], [-1.0, -1.0, -1.0]]]
    """

    def apply(stack, cohort, state, key):
        return replaced(stack, cohort, send(stack, *parties(cohort), cohort)), state

    return CohortLink(apply)


def seen_as(of: str, send: Send) -> Send:
    """Returns the same collusion of updates, or of the gradients that they are made of.

    An update is minus a rate times gradients: the mean minus a deviation of gradients, as papers on
    distributed gradients write it, is the mean plus a deviation of updates.

    Args:
      of: "updates" or "gradients".
      send: As for `together`.

    Raises:
      ValueError: For another name.

    Example:
      >>> lowest = lambda stack, honest, hostile, cohort: stack.min(0)
      >>> stack, rest = jnp.array([[1.0], [3.0]]), [None] * 3
      >>> [float(seen_as(of, lowest)(stack, *rest)[0]) for of in ("updates", "gradients")]
      [1.0, 3.0]
    """
    if checked("of", of, _SEEN_AS) == "updates":
        return send
    return lambda stack, *cohort: -send(-stack, *cohort)


def parties(cohort: Cohort) -> tuple[jax.Array, jax.Array]:
    """Returns (honest bool[P], hostile bool[P]) of those whose updates are there."""
    hostile = are_hostile(cohort)
    return cohort.valid & ~hostile, hostile


def replaced(stack: jax.Array, cohort: Cohort, sent: jax.Array) -> jax.Array:
    """Returns the stack with what attackers send in place of their updates.

    Where nobody is honest there is nothing to collude against. What is not finite would be left
    out by the server, so that an attacker who computes such a thing sends its own update.

    Args:
      stack: [P, d].
      cohort: The cohort.
      sent: [d] or [P, d].
    """
    honest, hostile = parties(cohort)
    sent = jnp.atleast_2d(sent.astype(stack.dtype))
    broken = jax.lax.psum(jnp.where(jnp.isfinite(sent), 0.0, 1.0).sum(1), cohort.axis_name)
    chosen = hostile & honest.any() & (broken == 0)
    return jnp.where(chosen[:, None], sent, stack)
