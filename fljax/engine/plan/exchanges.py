"""Exchanges: when lanes exchange a finished job for their next one, and when a wave is full."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fljax.engine.devices.execution import ExecutionPlan
from fljax.engine.plan.counting import ranges
from fljax.engine.plan.lanes import LaneAssignment


class Exchanges(NamedTuple):
    """The arrays of these names in a `PassPlan`."""

    exchange_time: np.ndarray
    exchange_lane: np.ndarray
    exchange_slot: np.ndarray
    exchange_next: np.ndarray
    wave_end: np.ndarray
    wave_jobs: np.ndarray
    num_waves: np.ndarray


def make_exchanges(
    steps: np.ndarray, assignment: LaneAssignment, execution: ExecutionPlan, jobs: int
) -> Exchanges:
    """Lists the exchanges and waves of one pass.

    An exchange ends the running job of some lanes and starts their next; the first ones, at step
    0, only start jobs. A wave ends with every so many jobs, in the order in which they end.

    Args:
      steps: int64[J] length of each job, all positive.
      assignment: Where and when the jobs run.
      execution: The execution plan.
      jobs: Jobs that a device can hold.
    """
    devices, lanes, wave, exchange_size, _ = execution
    num_exchanges, num_waves = jobs + lanes, -(-jobs // wave)
    exchange_time = np.zeros((devices, num_exchanges), np.int32)
    exchange_lane = np.full((devices, num_exchanges, exchange_size), lanes, np.int32)
    exchange_slot = np.full((devices, num_exchanges, exchange_size), wave, np.int32)
    exchange_next = np.full((devices, num_exchanges, exchange_size), jobs, np.int32)
    wave_end = np.zeros((devices, num_waves), np.int32)
    wave_jobs = np.full((devices, num_waves, wave), jobs, np.int32)

    # the end of every job; those that end together in the order of slots
    end = assignment.start + steps
    moment = assignment.device * (assignment.makespan + 1) + end
    order = (moment * jobs + assignment.slot).argsort()
    device, slot = assignment.device[order], assignment.slot[order]
    held = np.bincount(device, minlength=devices)
    first_of_device = (held.cumsum() - held)[device]
    number = np.arange(len(order)) - first_of_device
    in_wave, wave_slot = np.divmod(number, wave)
    exchange, place = _grouped(moment[order], in_wave, exchange_size)
    begun = np.minimum(held, lanes)
    exchange += -(-begun // exchange_size)[device] - exchange[first_of_device]
    at = device * num_exchanges + exchange
    place += at * exchange_size
    exchange_time.reshape(-1)[at] = end[order]
    exchange_lane.reshape(-1)[place] = assignment.lane[order]
    exchange_slot.reshape(-1)[place] = wave_slot
    exchange_next.reshape(-1)[place] = _next_on_lane(assignment, lanes, jobs)[order]
    wave_end.reshape(-1)[device * num_waves + in_wave] = exchange + 1
    wave_jobs.reshape(-1)[device * num_waves * wave + number] = slot
    waves = (-(-held // wave)).astype(np.int32)

    # before them, the start of each lane's first job, in the order of slots
    first = np.flatnonzero(assignment.start == 0)
    first = first[assignment.device[first].argsort(kind="stable")]
    place = assignment.device[first] * num_exchanges * exchange_size + ranges(begun)
    exchange_lane.reshape(-1)[place] = assignment.lane[first]
    exchange_next.reshape(-1)[place] = assignment.slot[first]
    return Exchanges(
        exchange_time, exchange_lane, exchange_slot, exchange_next, wave_end, wave_jobs, waves
    )


def _next_on_lane(assignment: LaneAssignment, lanes: int, jobs: int) -> np.ndarray:
    """Returns the slot of the job that follows each one on its lane (jobs: none)."""
    lane = assignment.device * lanes + assignment.lane
    order = (lane * (assignment.makespan + 1) + assignment.start).argsort()
    lane, slot = lane[order], assignment.slot[order]
    following = np.full(len(order), jobs)
    following[order[:-1]] = np.where(lane[1:] == lane[:-1], slot[1:], jobs)
    return following


def _grouped(
    moment: np.ndarray, wave: np.ndarray, exchange_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Groups what ends at one moment in one wave into exchanges of at most `exchange_size` lanes.

    Returns:
      (exchange, place in it) of each ending job; exchanges count on from device to device.
    """
    if exchange_size == 1:
        return np.arange(len(moment)), np.zeros(len(moment), np.int64)
    begins = np.ones(len(moment), bool)
    begins[1:] = (moment[1:] != moment[:-1]) | (wave[1:] != wave[:-1])
    begins = np.flatnonzero(begins)
    place = ranges(np.diff(begins, append=len(moment))) % exchange_size
    return (place == 0).cumsum() - 1, place
