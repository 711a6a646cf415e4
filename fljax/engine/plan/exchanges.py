"""Exchanges: when lanes exchange a finished job for their next one, and when a wave is full.

There are two kinds of schedules. Lanes exchange one by one, each as soon as its job ends, and waves
are filled as jobs end: so on CPUs. Or several exchange together, and these are a wave; lanes whose
jobs have ended before wait: so where a step is short for what an exchange takes, and wherever all
jobs end together.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fljax.engine.devices.execution import ExecutionPlan
from fljax.engine.plan.counting import ranges
from fljax.engine.plan.lanes import LaneAssignment
from fljax.engine.plan.round_plan import PassPlan

# what a kind of schedule does not need, and what others fill in, is None
_NOTHING = PassPlan(*[None] * len(PassPlan._fields))


class _Ends(NamedTuple):
    """The jobs as they end, one device after another.

    Attributes:
      device, lane, slot, time: int64[J] of each job; `time` is when it ends.
      following: int64[J] slot of the next job on its lane; the number of slots for none.
      number: int64[J] how many of its device have ended before it.
      held: int64[D] jobs of each device.
    """

    device: np.ndarray
    lane: np.ndarray
    slot: np.ndarray
    time: np.ndarray
    following: np.ndarray
    number: np.ndarray
    held: np.ndarray


def make_exchanges(
    steps: np.ndarray, assignment: LaneAssignment, execution: ExecutionPlan, jobs: int
) -> PassPlan:
    """Lists the exchanges and waves of one pass in which lanes exchange one by one.

    An exchange ends the running job of a lane and starts its next; the first ones, at step 0, only
    start jobs. A wave ends with every so many jobs, in the order in which they end.

    Args:
      steps: int64[J] length of each job, all positive.
      assignment: Where and when the jobs run.
      execution: The execution plan.
      jobs: Jobs that a device can hold.

    Returns:
      A plan without rows, counts and jobs.
    """
    devices, lanes, wave = execution.devices, execution.lanes, execution.wave
    num_exchanges, num_waves = jobs + lanes, -(-jobs // wave)
    exchange_time = np.zeros((devices, num_exchanges), np.int32)
    exchange_lane = np.full((devices, num_exchanges, 1), lanes, np.int32)
    exchange_slot = np.full((devices, num_exchanges, 1), wave, np.int32)
    exchange_next = np.full((devices, num_exchanges, 1), jobs, np.int32)
    wave_end = np.zeros((devices, num_waves), np.int32)

    ends = _ends(steps, assignment, execution, jobs, ties=assignment.slot)
    in_wave, wave_slot = np.divmod(ends.number, wave)
    begun = np.minimum(ends.held, lanes)
    exchange = begun[ends.device] + ends.number
    at = ends.device * num_exchanges + exchange
    exchange_time.reshape(-1)[at] = ends.time
    exchange_lane.reshape(-1)[at] = ends.lane
    exchange_slot.reshape(-1)[at] = wave_slot
    exchange_next.reshape(-1)[at] = ends.following
    wave_end.reshape(-1)[ends.device * num_waves + in_wave] = exchange + 1

    # before them, the start of each lane's first job, in the order of slots
    first = np.flatnonzero(assignment.start == 0)
    first = first[assignment.device[first].argsort(kind="stable")]
    at = assignment.device[first] * num_exchanges + ranges(begun)
    exchange_lane.reshape(-1)[at] = assignment.lane[first]
    exchange_next.reshape(-1)[at] = assignment.slot[first]
    return _NOTHING._replace(
        exchange_time=exchange_time,
        exchange_lane=exchange_lane,
        exchange_slot=exchange_slot,
        exchange_next=exchange_next,
        wave_end=wave_end,
        wave_jobs=_wave_jobs(ends, ends.number, num_waves, execution, jobs),
        num_waves=(-(-ends.held // wave)).astype(np.int32),
    )


def make_shared_exchanges(
    steps: np.ndarray,
    assignment: LaneAssignment,
    execution: ExecutionPlan,
    jobs: int,
    num_waves: int,
    *,
    timed: bool = True,
) -> PassPlan:
    """Lists the exchanges of one pass in which several lanes exchange together; each is a wave.

    Args:
      steps, assignment, execution, jobs: As for `make_exchanges`; the assignment knows of
        exchanges of this size.
      num_waves: V, at most.
      timed: False where all jobs take equally many steps and all lanes exchange together, so that
        nothing needs to be said about time.

    Returns:
      A plan without rows, counts and jobs.
    """
    devices, lanes, size = execution.devices, execution.lanes, execution.exchange_size
    ends = _ends(steps, assignment, execution, jobs, ties=assignment.lane)
    wave, place = np.divmod(ends.number, size)
    if size == lanes:
        # a job stands where its lane does, and ends in the wave in which it started
        place = ends.lane
    exchange_time = np.zeros((devices, num_waves + 1), np.int32)
    # of those that end in one wave, the last one comes last
    exchange_time[ends.device, wave + 1] = ends.time
    shared = _NOTHING._replace(
        exchange_time=exchange_time if timed else None,
        wave_jobs=_wave_jobs(ends, wave * size + place, num_waves, execution, jobs),
        num_waves=(-(-ends.held // size)).astype(np.int32),
    )
    if size == lanes:
        return shared
    first_jobs = np.full((devices, lanes), jobs, np.int32)
    first = np.flatnonzero(assignment.start == 0)
    first_jobs[assignment.device[first], assignment.lane[first]] = assignment.slot[first]
    # the first exchange starts the jobs of the first lanes; all others start before it
    exchange_lane = np.empty((devices, num_waves + 1, size), np.int32)
    exchange_lane[:] = np.arange(size)
    exchange_next = np.full((devices, num_waves + 1, size), jobs, np.int32)
    exchange_next[:, 0] = first_jobs[:, :size]
    exchange_lane[ends.device, wave + 1, place] = ends.lane
    exchange_next[ends.device, wave + 1, place] = ends.following
    return shared._replace(
        exchange_lane=exchange_lane,
        exchange_next=exchange_next,
        first_jobs=first_jobs[:, size:],
    )


def _ends(
    steps: np.ndarray,
    assignment: LaneAssignment,
    execution: ExecutionPlan,
    jobs: int,
    *,
    ties: np.ndarray,
) -> _Ends:
    """Lists the jobs as they end, those of one moment by `ties`, int64[J] numbers on a device."""
    end = assignment.start + steps
    moment = assignment.device * (assignment.makespan + 1) + end
    order = (moment * (max(jobs, execution.lanes) + 1) + ties).argsort()
    device = assignment.device[order]
    held = np.bincount(device, minlength=execution.devices)
    return _Ends(
        device=device,
        lane=assignment.lane[order],
        slot=assignment.slot[order],
        time=end[order],
        following=_next_on_lane(assignment, execution.lanes, jobs)[order],
        number=ranges(held),
        held=held,
    )


def _wave_jobs(
    ends: _Ends, place: np.ndarray, num_waves: int, execution: ExecutionPlan, jobs: int
) -> np.ndarray:
    """Returns int32[D, V, W], jobs by wave and slot; what no job is lies beyond all jobs, each slot
    elsewhere, so that no two are written to one place."""
    wave = execution.wave
    out = np.empty((execution.devices, num_waves, wave), np.int32)
    out[:] = jobs + np.arange(wave)
    out.reshape(execution.devices, -1)[ends.device, place] = ends.slot
    return out


def _next_on_lane(assignment: LaneAssignment, lanes: int, jobs: int) -> np.ndarray:
    """Returns the slot of the job that follows each one on its lane (jobs: none)."""
    lane = assignment.device * lanes + assignment.lane
    order = (lane * (assignment.makespan + 1) + assignment.start).argsort()
    lane, slot = lane[order], assignment.slot[order]
    following = np.full(len(order), jobs)
    following[order[:-1]] = np.where(lane[1:] == lane[:-1], slot[1:], jobs)
    return following
