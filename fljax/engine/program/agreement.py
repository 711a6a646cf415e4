"""Agreement: what clients and server know of a pass before anybody trains, and who then arrives."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from fljax.core import transmission
from fljax.core.transforms import Participants
from fljax.engine.devices.execution import AXIS
from fljax.engine.program.cohort_order import gathered, in_cohort_order
from fljax.engine.program.keys import AGREED
from fljax.engine.program.passes import Pass
from fljax.engine.program.trials import Built


def agreed(a_pass: Pass) -> tuple | None:
    """Returns what the links of the uplink agree on, leaves [S, ...]; None where none does."""
    trials = a_pass.trials
    if not trials.first.pipeline.agrees:
        return None
    present = by_trial(a_pass, a_pass.asked)

    def one_trial(built: Built, present, round, key):
        people = Participants(present, round, jax.random.fold_in(key, AGREED), AXIS)
        return transmission.agree(built.pipeline, people)

    return trials.each(one_trial, present, trials.rounds, a_pass.keys)


def by_trial(a_pass: Pass, wanted: jax.Array) -> jax.Array:
    """Returns bool[S, P], the positions of each trial's jobs that are wanted[J]."""
    wanted, trial = (
        in_cohort_order(gathered(column), a_pass.cohort_index)
        for column in (wanted, a_pass.jobs.trial)
    )
    numbers = jnp.arange(len(a_pass.trials.rounds), dtype=trial.dtype)
    return wanted & (trial == numbers[:, None])
