"""Selection on the devices: which jobs the later passes of a round keep."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from fljax.engine.plan.round_plan import RoundPlan
from fljax.engine.program.aggregation import gathered, in_cohort_order
from fljax.engine.program.jobs import Jobs
from fljax.engine.program.trials import Built, Trials


def select(
    trials: Trials, number: int, stats: dict[str, jax.Array], plan: RoundPlan, jobs: Jobs
) -> jax.Array | None:
    """Returns bool[J], the jobs of this device that later passes keep; None without any rule.

    Args:
      trials: The trials.
      number: Of the pass.
      stats: {name: [J]} of the pass.
      plan: Of the round.
      jobs: The jobs of this device in the pass.
    """

    passes = trials.first.algorithm.passes
    if passes[number].select is None:
        return jobs.selected
    if number + 1 == len(passes):
        raise ValueError(
            f"Pass {number} selects jobs for the passes after it, but it is the last one. Leave "
            "out `select`, or give it to an earlier pass."
        )
    columns = jobs.columns
    stats, of_trial = jax.tree.map(
        lambda column: in_cohort_order(gathered(column), plan.cohort_index), (stats, columns.trial)
    )

    def one_trial(built: Built, trial: jax.Array) -> jax.Array:
        arrived = (stats["jobs"] > 0) & (of_trial == trial)
        return built.algorithm.passes[number].select(stats, arrived) & arrived

    kept = trials.each(one_trial, jnp.arange(len(plan.round), dtype=jnp.int32))
    return kept[columns.trial, columns.position] & (columns.client >= 0)
