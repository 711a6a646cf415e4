"""The jobs of one device in one pass, as the round program holds them."""

from __future__ import annotations

from typing import NamedTuple

import jax

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
    """

    columns: JobArrays
    rounds: jax.Array
    keys: jax.Array
    own: OwnNumbers

    @property
    def number(self) -> int:
        """How many there are, padding included."""
        return self.columns.client.shape[0]

    def view(self, index: jax.Array, time: jax.Array | int = 0) -> Job:
        """Returns a job as an algorithm sees it, at step `time` of its lane."""
        job = jax.tree.map(lambda column: column[index], self.columns)
        key = jax.random.fold_in(self.keys[job.trial], job.client)
        return Job(
            client=job.client,
            position=job.position,
            trial=job.trial,
            segment=job.segment,
            rows=job.rows,
            steps=job.steps,
            step=time - job.start,
            round=self.rounds[job.trial],
            occurrence=job.occurrence,
            accepted=job.accepted,
            group=job.group,
            staleness=job.staleness,
            tier=job.tier,
            key=jax.random.fold_in(key, job.occurrence),
            weight=None if self.own.weights is None else self.own.weights[job.client],
        )
