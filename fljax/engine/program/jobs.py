"""The jobs of one device in one pass, as the round program holds them."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from fljax.core.algorithm import Job
from fljax.engine.plan.round_plan import JobArrays
from fljax.engine.program.inputs import OwnNumbers


class Jobs(NamedTuple):
    """The jobs of one device in one pass.

    Attributes:
      columns: Their columns of the plan, [J].
      rounds: int32[S] round number of each trial.
      keys: Keys [S] of the pass.
      own: What clients have of their own.
      selected: bool[J] the jobs that the passes before have kept; None where no rule selects.
    """

    columns: JobArrays
    rounds: jax.Array
    keys: jax.Array
    own: OwnNumbers
    selected: jax.Array | None = None

    def received(self, bits: jax.Array) -> jax.Array:
        """Returns uint32[J], the bits that each job received of messages with bits [S]."""
        columns = self.columns
        asked = columns.client >= 0 if self.selected is None else self.selected
        return jnp.where(asked, bits[columns.trial], 0)

    def view(self, index: jax.Array, time: jax.Array | int = 0) -> Job:
        """Returns a job as an algorithm sees it, at step `time` of its lane."""
        job = jax.tree.map(lambda column: column[index], self.columns)
        key = jax.random.fold_in(self.keys[job.trial], job.client)
        kept = job.accepted if self.selected is None else job.accepted & self.selected[index]
        return Job(
            client=job.client,
            position=job.position,
            trial=job.trial,
            version=job.version,
            rows=job.rows,
            steps=job.steps,
            step=time - job.start,
            round=self.rounds[job.trial],
            occurrence=job.occurrence,
            accepted=kept,
            group=job.group,
            key=jax.random.fold_in(key, job.occurrence),
            weight=None if self.own.weights is None else self.own.weights[job.client],
        )
