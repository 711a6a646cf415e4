"""Agreement: what is known of a pass before anybody trains: shared keys, and who is hostile."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from fljax.core import transmission
from fljax.core.transforms import Participants
from fljax.engine.devices.execution import AXIS
from fljax.engine.program.cohort_order import gathered, in_cohort_order
from fljax.engine.program.keys import AGREED, ATTACKERS
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


def attackers(a_pass: Pass) -> jax.Array | None:
    """Returns bool[S, P], who of each trial's cohort is hostile; None where nobody ever is."""
    trials = a_pass.trials
    if trials.first.pipeline.attackers is None:
        return None
    clients = in_cohort_order(gathered(a_pass.jobs.client), a_pass.cohort_index)
    asked = by_trial(a_pass, a_pass.jobs.client >= 0)

    def one_trial(built: Built, asked, round, key):
        key = jax.random.fold_in(key, ATTACKERS)
        hostile = built.pipeline.attackers.among(jnp.where(asked, clients, -1), asked, round, key)
        return hostile & asked

    return trials.each(one_trial, asked, trials.rounds, trials.inputs.keys)


def by_trial(a_pass: Pass, wanted: jax.Array) -> jax.Array:
    """Returns bool[S, P], the positions of each trial's jobs that are wanted[J]."""
    wanted, trial = (
        in_cohort_order(gathered(column), a_pass.cohort_index)
        for column in (wanted, a_pass.jobs.trial)
    )
    numbers = jnp.arange(len(a_pass.trials.rounds), dtype=trial.dtype)
    return wanted & (trial == numbers[:, None])
