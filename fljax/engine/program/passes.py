"""One pass of a round, as a device sees it: its trials, its jobs, its schedule."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from fljax.core.algorithm import ClientPass, Job
from fljax.core.trees import traced_once
from fljax.engine.plan.round_plan import JobArrays, PassPlan
from fljax.engine.program.trials import Trials


class Pass(NamedTuple):
    """One pass of a round on one device.

    Attributes:
      number: Its place among the algorithm's passes.
      trials: The trials that train side by side.
      plan: The device's schedule, and its jobs.
      cohort_index: int32[P] as in the `RoundPlan`.
      keys: Keys [S] of the pass.
      selected: bool[J] the jobs that the passes before have kept; None where no rule selects.
      sound: bool[J] the jobs that were finite in the passes before; None in the first, and where
        what is not finite counts as zero.
      agreed: What the links of the uplink have agreed on, leaves [S, ...]; None where none agrees.
      attackers: bool[S, P] who of the cohort is hostile; None where nobody is.
      scale: float[J] factors of the jobs' updates, by which the passes before have kept them; None
        where no rule says any.
    """

    number: int
    trials: Trials
    plan: PassPlan
    cohort_index: jax.Array
    keys: jax.Array
    selected: jax.Array | None
    agreed: tuple | None = None
    sound: jax.Array | None = None
    attackers: jax.Array | None = None
    scale: jax.Array | None = None

    @property
    def jobs(self) -> JobArrays:
        """The jobs, columns [J]."""
        return self.plan.jobs

    @property
    def structure(self) -> ClientPass:
        """The functions of the first trial: they tell what no hyperparameter decides on."""
        return self.trials.first.algorithm.passes[self.number]

    @property
    def changes_updates(self) -> bool:
        """Says whether the server takes in other updates than clients send; see `arrivals.py`."""
        return self.trials.program.rebased or bool(self.scales)

    @property
    def scales(self) -> list[jax.Array]:
        """Factors [J] of the jobs' updates, all of which count."""
        return [scale for scale in (self.jobs.scale, self.scale) if scale is not None]

    @property
    def asked(self) -> jax.Array:
        """bool[J], the jobs that take part, whether they arrive or not."""
        asked = self.jobs.client >= 0 if self.selected is None else self.selected
        return asked if self.sound is None else asked & self.sound

    def received(self, bits: jax.Array) -> jax.Array:
        """Returns uint32[J], the bits that each job received of messages with bits [S]."""
        return jnp.where(self.asked, bits[self.jobs.trial], 0)

    def job(self, index: jax.Array, time: jax.Array | int = 0) -> Job:
        """Returns a job as an algorithm sees it, at step `time` of its lane."""
        row = _row(self.jobs, index)
        kept = row.accepted
        for mask in (self.selected, self.sound):
            kept = kept if mask is None else kept & mask[index]
        key = jax.random.fold_in(self.keys[row.trial], row.client)
        weights, hostile = self.trials.inputs.own.weights, self.attackers
        return Job(
            client=row.client,
            position=row.position,
            trial=row.trial,
            version=row.version,
            rows=row.rows,
            steps=row.steps,
            step=time - row.start,
            round=self.trials.rounds[row.trial],
            occurrence=row.occurrence,
            accepted=kept,
            group=row.group,
            key=jax.random.fold_in(key, row.occurrence),
            weight=None if weights is None else weights[row.client],
            attacker=None if hostile is None else hostile[row.trial, row.position],
        )


@traced_once
def _row(jobs: JobArrays, index: jax.Array) -> JobArrays:
    """Returns the columns of one job."""
    return jax.tree.map(lambda column: column[index], jobs)
