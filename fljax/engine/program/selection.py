"""Selection on the devices: which jobs the later passes of a round keep, and which cannot go on."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from fljax.engine.program.cohort_order import gathered, in_cohort_order
from fljax.engine.program.passes import Pass
from fljax.engine.program.trials import Built


def still_sound(a_pass: Pass, stats: dict[str, jax.Array]) -> jax.Array | None:
    """Returns bool[J], the jobs that can go on to the next pass; None for all.

    A client whose work was not finite has nothing to go on with. Where the uplink makes zeros of
    it, the client takes part all the same, as noise is for a fixed number of them.

    Args:
      a_pass: The pass.
      stats: {name: [J]} of the pass.
    """
    is_last = a_pass.number + 1 == len(a_pass.trials.first.algorithm.passes)
    if is_last or a_pass.trials.first.pipeline.makes_finite:
        return None
    finite = stats["nonfinite"] == 0
    return finite if a_pass.sound is None else finite & a_pass.sound


def select(a_pass: Pass, stats: dict[str, jax.Array]) -> jax.Array | None:
    """Returns bool[J], the jobs of this device that later passes keep; None without any rule.

    Args:
      a_pass: The pass, whose rule decides.
      stats: {name: [J]} of the pass.

    Raises:
      ValueError: If the last pass has a rule.
    """
    if a_pass.structure.select is None:
        return a_pass.selected
    if a_pass.number + 1 == len(a_pass.trials.first.algorithm.passes):
        raise ValueError(
            f"Pass {a_pass.number} selects jobs for the passes after it, but it is the last one. "
            "Leave out `select`, or give it to an earlier pass."
        )
    jobs = a_pass.jobs
    stats, trials = jax.tree.map(
        lambda column: in_cohort_order(gathered(column), a_pass.cohort_index), (stats, jobs.trial)
    )

    def one_trial(built: Built, trial: jax.Array) -> jax.Array:
        arrived = (stats["jobs"] > 0) & (trials == trial)
        chosen = built.algorithm.passes[a_pass.number].select(stats, arrived)
        kind, shape = jnp.result_type(chosen), jnp.shape(chosen)
        if kind != arrived.dtype or shape != arrived.shape:
            raise ValueError(
                f"`select` of pass {a_pass.number} returns {kind}{list(shape)}; it must return "
                f"bool{list(arrived.shape)}, whether each job of the cohort is kept."
            )
        return chosen & arrived

    numbers = jnp.arange(len(a_pass.trials.rounds), dtype=jnp.int32)
    kept = a_pass.trials.each(one_trial, numbers)
    return kept[jobs.trial, jobs.position] & (jobs.client >= 0)
