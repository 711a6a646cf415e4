"""The ring of past messages, from which late clients start.

It is part of the round state only where a program keeps several versions. Each round writes one
place and moves nothing. The plan says which: that of a message which no job under way started from,
so that there are as many places as such messages at a time, however late the last job is; or, by
default, place r modulo V in round r.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fljax.core.algorithm import Algorithm
from fljax.core.trees import batched, zeros_like_shape
from fljax.engine.program.passes import Pass

PyTree = Any


def empty_ring(algorithm: Algorithm, server: PyTree, num_versions: int) -> PyTree:
    """Returns room for the messages of one trial, leaves [V, ...].

    Args:
      algorithm: The algorithm, of a single pass.
      server: Its server state; shapes will do.
      num_versions: Number V of versions, the newest one included.

    Raises:
      ValueError: If the algorithm has several passes.
    """
    if len(algorithm.passes) > 1:
        raise ValueError(
            f"num_versions = {num_versions}, but the algorithm has {len(algorithm.passes)} passes, "
            "and the later ones depend on what this round's clients sent. Clients can start from "
            "older versions in algorithms of one pass."
        )
    message = jax.eval_shape(algorithm.passes[0].broadcast, server, {})
    return zeros_like_shape(message, num_versions)


def resized(ring: PyTree, num_versions: int) -> PyTree:
    """Returns a ring with another number of places; each message stays in its own.

    Args:
      ring: Leaves [S, V, ...], NumPy arrays.
      num_versions: Places of the new one. Those beyond hold nothing that a job starts from: zeros
        where there are more, and where there are fewer they are left out.

    Example:
      >>> from fljax.engine.program.versions import resized
      >>> resized({"w": np.ones((1, 2, 1))}, 3)["w"].ravel().tolist()
      [1.0, 1.0, 0.0]
    """

    def of_leaf(leaf):
        found = np.zeros((len(leaf), num_versions, *leaf.shape[2:]), leaf.dtype)
        kept = min(num_versions, leaf.shape[1])
        found[:, :kept] = leaf[:, :kept]
        return found

    return jax.tree.map(of_leaf, ring)


def recalled(a_pass: Pass, ring: PyTree, messages: PyTree) -> tuple[PyTree, PyTree, jax.Array]:
    """Adds this round's messages to the ring, and says which message each job starts from.

    Args:
      a_pass: The pass.
      ring: Past messages, leaves [S, V, ...]; unused where the program keeps one version.
      messages: Of this round, leaves [S, ...].

    Returns:
      (the ring with the new messages, messages [M, ...], int32[J] the message of each job).
    """
    jobs, trials = a_pass.jobs, a_pass.trials
    num_versions = trials.program.num_versions
    if num_versions == 1:
        return ring, messages, jobs.trial

    def one_trial(ring, message, place):
        return jax.tree.map(
            lambda leaf, new: jax.lax.dynamic_update_index_in_dim(
                leaf, new.astype(leaf.dtype), place, 0
            ),
            ring,
            message,
        )

    ring = batched(one_trial, trials.program.num_trials)(ring, messages, trials.newest)
    every = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), ring)
    return ring, every, jobs.trial * num_versions + jobs.place


def newest(a_pass: Pass, messages: PyTree) -> PyTree | None:
    """Returns the newest message of each trial, leaves [S, ...]; None where nobody asks for it.

    Args:
      a_pass: The pass.
      messages: Leaves [M, ...], as `recalled` returns them.
    """
    trials = a_pass.trials
    if not trials.program.rebased:
        return None
    trial = jnp.arange(trials.program.num_trials)
    place = trial * trials.program.num_versions + trials.newest
    return jax.tree.map(lambda leaf: leaf[place], messages)
