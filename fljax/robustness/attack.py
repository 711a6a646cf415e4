"""An attack: what hostile clients do to their batches, their messages, or with those of all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from fljax.core.algorithm import Job
from fljax.core.transforms import BatchLink, Cohort, CohortLink, Trigger, UplinkLink

__all__ = ["Attack", "are_hostile", "is_hostile"]


class Attack(NamedTuple):
    """The parts of an attack by hostile clients.

    Links leave clients alone that are no attackers: they read `Job.attacker`, `Cohort.attackers`.

    Attributes:
      batches: Transforms of what attackers train on.
      uplink: Transforms of what each attacker sends, which stand before compression; they need no
        other client, so that sums still stream.
      cohort: Transforms of all updates at once, of attackers that see the honest ones.
      trigger: Of a backdoor, the rows by which its success is judged; None of other attacks.
      own_rows: (x, y, rng) -> (x', y') in NumPy, what an attacker holds instead of its training
        rows from the start, as many; None where data stay as they are. See `fljax.data.poisoned`.
      labels: y -> y' in NumPy, of attacks on labels alone: what becomes of a class where it goes
        wrong. A run compares it with the classes of its task.
    """

    batches: tuple[BatchLink, ...] = ()
    uplink: tuple[UplinkLink, ...] = ()
    cohort: tuple[CohortLink, ...] = ()
    trigger: Trigger | None = None
    own_rows: Callable[[Any, Any, np.random.Generator], tuple[Any, Any]] | None = None
    labels: tuple[Callable[[np.ndarray], Any], ...] = ()


def is_hostile(job: Job) -> jax.Array:
    """Returns whether the client of a job is hostile, a bool scalar.

    Raises:
      ValueError: If nobody said who is.

    Example:
      >>> job = fljax.core.algorithm.blank_job(None)._replace(attacker=jnp.bool_(True))
      >>> bool(is_hostile(job))
      True
    """
    return _said(job.attacker)


def are_hostile(cohort: Cohort) -> jax.Array:
    """Returns whose updates are hostile, bool[P].

    Raises:
      ValueError: If nobody said whose.

    Example:
      >>> there = jnp.array([True, False])
      >>> are_hostile(Cohort(there, there, None, None, None, attackers=there)).tolist()
      [True, False]
    """
    return _said(cohort.attackers) & cohort.valid


def _said(attackers: jax.Array | None) -> jax.Array:
    """Returns who is hostile, if somebody said it."""
    if attackers is None:
        raise ValueError(
            "The pipeline has an attack, but nobody is hostile: give it attackers, such as "
            "fljax.robustness.attackers.by_client([3])."
        )
    return attackers
