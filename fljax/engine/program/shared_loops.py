"""The loops of a device whose lanes exchange their jobs together; an exchange is a wave of jobs.

    for each wave:                       # G jobs start on the lanes that the last wave's have left
        for each step until G have ended:  # all lanes train side by side (the vmapped axis)
        finish and uplink the jobs that have ended, add them to the accumulators

A lane whose job has ended before waits: it computes steps, but its job stays as it is. Where all
lanes exchange together, no lane is written or read by itself; where every job also takes equally
many steps, nobody waits, and the number of steps is no data but part of the program. The lanes that
the first wave does not start have started before it, all at once.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from fljax.core.trees import batched, put_rows, take_rows, zeros_like_shape
from fljax.engine.program.accumulators import Accumulators, Trained
from fljax.engine.program.lanes import Lane, Lanes

PyTree = Any


def run_together(lanes: Lanes, accumulators: Accumulators, trained: Trained) -> Trained:
    """Runs all jobs of one pass on this device.

    Args:
      lanes: The lanes, with their schedule.
      accumulators: Where results go.
      trained: The empty accumulators.
    """

    def one_wave(number, state):
        return _wave(lanes, accumulators, number, *state)

    state = _waiting_lanes(lanes, trained.client_rows), trained
    if lanes.plan.wave_jobs.shape[0] == 1:
        return one_wave(0, state)[-1]
    return jax.lax.fori_loop(0, lanes.plan.num_waves, one_wave, state)[-1]


def _wave(lanes: Lanes, accumulators: Accumulators, number, running, trained):
    """Starts a wave's jobs, trains until as many have ended, and adds these to the accumulators."""
    plan, client_rows, ending = lanes.plan, trained.client_rows, lanes.plan.wave_jobs[number]
    all_exchange = plan.exchange_lane is None
    starting = ending if all_exchange else plan.exchange_next[number]
    # a lane without a next job starts some job that nobody will finish
    running_jobs = _start(lanes, starting, client_rows)
    if not all_exchange:
        running_jobs = put_rows(running, plan.exchange_lane[number], running_jobs)
    running_jobs = _steps(lanes, number, running_jobs)
    ended = running_jobs
    if not all_exchange:
        running, ended = running_jobs, take_rows(running_jobs, plan.exchange_lane[number + 1])
    # XLA would keep what it has spread over the lanes at their start, a copy of every lane's model,
    # until the jobs are finished; so the message is another one then
    after = lanes._replace(messages=jax.lax.optimization_barrier(lanes.messages))
    finish_jobs = batched(after.finish_job, lanes.wave, (0, 0, None))
    done = finish_jobs(ended, jnp.minimum(ending, lanes.num_jobs - 1), client_rows)
    return running, accumulators.add(trained, done, ending)


def _waiting_lanes(lanes: Lanes, client_rows: PyTree) -> Lane | tuple[()]:
    """Returns the lanes before the first wave, which starts G of them; () if it starts all."""
    if lanes.plan.first_jobs is None:
        return ()
    behind = _start(lanes, lanes.plan.first_jobs, client_rows)
    first = jax.eval_shape(lambda lane: jax.tree.map(lambda leaf: leaf[0], lane), behind)
    return jax.tree.map(
        lambda *parts: jnp.concatenate(parts), zeros_like_shape(first, lanes.wave), behind
    )


def _start(lanes: Lanes, jobs: jax.Array, client_rows: PyTree) -> Lane:
    start_jobs = batched(lanes.start_job, len(jobs), (0, None))
    return start_jobs(jnp.minimum(jobs, lanes.num_jobs - 1), client_rows)


def _steps(lanes: Lanes, number, running: Lane) -> Lane:
    """Trains all lanes through the steps of a wave."""
    plan, each = lanes.plan, lanes.plan.equal_steps
    is_plain = each or lanes.work.waits
    step_jobs = jax.vmap(lanes.step_job if is_plain else _held(lanes), (0, 0, 0, None))

    def one_step(time, running):
        return step_jobs(running, plan.rows[time], plan.counts[time], time)

    if each:
        first = each * number

        def next_step(step, running):
            # counted in int64 where that is enabled, while a plan's times are int32
            return one_step(jnp.asarray(first + step, jnp.int32), running)

        return jax.lax.fori_loop(0, each, next_step, running)
    times = plan.exchange_time
    return jax.lax.fori_loop(times[number], times[number + 1], one_step, running)


def _held(lanes: Lanes):
    """Returns `lanes.step_job` for lanes that may be idle, whose job stays as it is."""

    def step_job(lane: Lane, rows: jax.Array, count: jax.Array, time: jax.Array) -> Lane:
        after = lanes.step_job(lane, rows, count, time)
        if _kinds(after) != _kinds(lane):
            return after  # the loop over steps says best what is wrong
        keep = lambda new, old: jnp.where(count > 0, new, old)  # noqa: E731
        return lane._replace(carry=jax.tree.map(keep, after.carry, lane.carry))

    return step_job


def _kinds(tree: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf: (jnp.shape(leaf), jnp.result_type(leaf)), tree)
