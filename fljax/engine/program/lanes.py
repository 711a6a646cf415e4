"""Lanes: what one device trains side by side, and what a lane does with a job."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fljax.engine.plan.round_plan import PassPlan
from fljax.engine.program.accumulators import Finished
from fljax.engine.program.layout import Work

PyTree = Any


class Lane(NamedTuple):
    """A lane: its job, the job's message (see `Lanes`), its training."""

    job: jax.Array
    message: PyTree
    carry: PyTree


class Lanes(NamedTuple):
    """The lanes of a device, and what they work on.

    Attributes:
      work: What one job does.
      messages: Leaves [M, ...].
      message_of: int32[J] the message that each job starts from.
      plan: The schedule.
    """

    work: Work
    messages: PyTree
    message_of: jax.Array
    plan: PassPlan

    @property
    def number(self) -> int:
        """The number of lanes."""
        return self.plan.rows.shape[1]

    @property
    def wave(self) -> int:
        """The number of a wave's jobs."""
        return self.plan.wave_jobs.shape[1]

    @property
    def num_jobs(self) -> int:
        """The number of jobs, padding included."""
        return self.message_of.shape[0]

    @property
    def alone(self) -> bool:
        """Says whether one job at a time runs, and is finished on its lane."""
        return self.number == self.wave == 1

    @property
    def carry_messages(self) -> bool:
        """Says whether each lane holds a copy of its job's message.

        Lanes side by side would gather their messages in every step; a single one reads its own
        where it is, and copies nothing.
        """
        return self.number > 1 and _length(self.messages) > 1

    def start_job(self, index: jax.Array, client_rows: PyTree) -> Lane:
        """Returns a lane at the beginning of a job."""
        message = self._message(index)
        carry = self.work.start(message, index, row_of(client_rows, index))
        return Lane(jnp.int32(index), message if self.carry_messages else (), carry)

    def step_job(self, lane: Lane, rows: jax.Array, count: jax.Array, time: jax.Array) -> Lane:
        """Returns a lane after a local step."""
        message = lane.message if self.carry_messages else self._message(lane.job)
        carry = self.work.step(message, lane.carry, lane.job, rows, count, time)
        return lane._replace(carry=carry)

    def finish_job(self, lane: Lane, index: jax.Array, client_rows: PyTree) -> Finished:
        """Returns what the job of a lane leaves behind."""
        message = lane.message if self.carry_messages else self._message(lane.job)
        return self.work.finish(message, lane.carry, index, row_of(client_rows, index))

    def _message(self, index: jax.Array) -> PyTree:
        which = self.message_of[index] if _length(self.messages) > 1 else 0
        return row_of(self.messages, which)


def row_of(tree: PyTree, index: jax.Array | int) -> PyTree:
    """Returns one row of every leaf."""
    return jax.tree.map(lambda leaf: leaf[index], tree)


def _length(tree: PyTree) -> int:
    """Returns the length of the leading axis of leaves; 0 where there are none."""
    return max((len(leaf) for leaf in jax.tree.leaves(tree)), default=0)
