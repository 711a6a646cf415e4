"""The three nested loops in which one device runs the jobs of a pass; their trip counts are data.

    for each wave:                         # until W jobs have finished
        for each exchange of the wave:     # a job starts on the lane that became free
            for each step until one ends:  # all lanes train side by side (the vmapped axis)
        finish and uplink the wave's jobs, add them to the accumulators

So `step` runs once per local step, and `start`, `finish` and the uplink once per job. Where several
lanes exchange together, an exchange is a wave, and the loops are two (`shared_loops.py`).
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from fljax.core.trees import batched, put_rows, take_rows, zeros_like_shape
from fljax.engine.plan.round_plan import PassPlan
from fljax.engine.program.accumulators import Accumulators, Trained
from fljax.engine.program.lanes import Lane, Lanes, row_of
from fljax.engine.program.layout import Work
from fljax.engine.program.shared_loops import run_together

PyTree = Any


def run_jobs(
    work: Work,
    messages: PyTree,
    message_of: jax.Array,
    plan: PassPlan,
    client_rows: PyTree,
    accumulators: Accumulators,
) -> Trained:
    """Runs all jobs of one pass on this device.

    Args:
      work: What one job does.
      messages: What jobs may start from, leaves [M, ...].
      message_of: int32[J] the message of each job.
      plan: The schedule.
      client_rows: What clients keep, leaves [J, ...].
      accumulators: Where results go.
    """
    lanes = Lanes(work, messages, message_of, plan)
    lane = jax.eval_shape(lanes.start_job, jnp.int32(0), client_rows)
    job = jax.eval_shape(lanes.finish_job, lane, jnp.int32(0), client_rows)
    if plan.shares_exchanges:
        return run_together(lanes, accumulators, accumulators.empty(job, client_rows))
    nobody = zeros_like_shape(lane, lanes.number)
    finished = () if lanes.alone else zeros_like_shape(lane, lanes.wave)
    trained = accumulators.empty(job, client_rows)

    def one_wave(number, state):
        return _wave(lanes, accumulators, number, *state)

    state = (jnp.int32(0), nobody, finished, trained)
    return jax.lax.fori_loop(0, plan.num_waves, one_wave, state)[-1]


def _wave(lanes: Lanes, accumulators: Accumulators, number, time, running, finished, trained):
    """Runs lanes until a wave of jobs has finished, and adds these to the accumulators."""
    plan = lanes.plan
    # a job's row is read before it is written, so it may be written where it was read
    client_rows = trained.client_rows
    # the first exchange has nothing but jobs to start
    begin = jnp.where(number == 0, 1, plan.wave_end[number - 1])

    def one_exchange(number, state):
        return _exchange(lanes, client_rows, number, *state)

    time, running, finished = jax.lax.fori_loop(
        begin, plan.wave_end[number], one_exchange, (time, running, finished)
    )
    indices = plan.wave_jobs[number]
    finish_jobs = batched(lanes.finish_job, lanes.wave, (0, 0, None))
    ended = running if lanes.alone else finished
    done = finish_jobs(ended, jnp.minimum(indices, lanes.num_jobs - 1), client_rows)
    return time, running, finished, accumulators.add(trained, done, indices)


def _exchange(lanes: Lanes, client_rows, number, time, running, finished):
    """Starts a job on the lane that is free, trains until one ends, and keeps it."""
    plan = lanes.plan
    # the job that follows that of the exchange before starts here: behind the training, lanes
    # would be written after they were read, and XLA would copy all of them
    free, following = plan.exchange_lane[number - 1], plan.exchange_next[number - 1]
    start_jobs = batched(lanes.start_job, 1, (0, None))
    # a lane without a next job starts some job that nobody will finish
    fresh = start_jobs(jnp.minimum(following, lanes.num_jobs - 1), client_rows)
    end = plan.exchange_time[number]
    running = _steps(lanes, put_rows(running, free, fresh), time, end)
    if not lanes.alone:
        ended = take_rows(running, plan.exchange_lane[number])
        finished = put_rows(finished, plan.exchange_slot[number], ended)
    return end, running, finished


def _steps(lanes: Lanes, running: Lane, begin: jax.Array, end: jax.Array) -> Lane:
    """Trains all lanes from one step to another."""
    plan = lanes.plan
    if lanes.number > 1:
        step_jobs = jax.vmap(lanes.step_job, (0, 0, 0, None))
        body = lambda t, running: step_jobs(running, plan.rows[t], plan.counts[t], t)  # noqa: E731
        return jax.lax.fori_loop(begin, end, body, running)
    # an axis of one lane inside the loop would cost a copy of the model in every step
    body = lambda t, lane: lanes.step_job(lane, plan.rows[t, 0], plan.counts[t, 0], t)  # noqa: E731
    lane = jax.lax.fori_loop(begin, end, body, row_of(running, 0))
    return jax.tree.map(lambda leaf: leaf[None], lane)
