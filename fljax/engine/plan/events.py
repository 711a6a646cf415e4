"""Events: when lanes exchange a finished job for their next one, and when a wave is full."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fljax.engine.devices.execution import ExecutionPlan
from fljax.engine.plan.counting import ranges
from fljax.engine.plan.packing import Packing


class Events(NamedTuple):
    """The arrays of these names in a `PassPlan`."""

    event_time: np.ndarray
    event_lane: np.ndarray
    event_slot: np.ndarray
    event_next: np.ndarray
    wave_end: np.ndarray
    wave_jobs: np.ndarray
    num_waves: np.ndarray


def make_events(steps: np.ndarray, packing: Packing, execution: ExecutionPlan, jobs: int) -> Events:
    """Lists the events and waves of one pass.

    An event ends the running job of some lanes and starts their next one; the first events, at step
    0, only start jobs. A wave ends with every so many jobs, in the order in which they end.

    Args:
      steps: int64[J] length of each job, all positive.
      packing: Where and when the jobs run.
      execution: The execution plan.
      jobs: Jobs that a device can hold.
    """
    devices, lanes, wave, harvest, _ = execution
    num_events, num_waves = jobs + lanes, -(-jobs // wave)
    event_time = np.zeros((devices, num_events), np.int32)
    event_lane = np.full((devices, num_events, harvest), lanes, np.int32)
    event_slot = np.full((devices, num_events, harvest), wave, np.int32)
    event_next = np.full((devices, num_events, harvest), jobs, np.int32)
    wave_end = np.zeros((devices, num_waves), np.int32)
    wave_jobs = np.full((devices, num_waves, wave), jobs, np.int32)

    # the end of every job; those that end together in the order of slots
    end = packing.start + steps
    moment = packing.device * (packing.makespan + 1) + end
    order = (moment * jobs + packing.slot).argsort()
    device, slot = packing.device[order], packing.slot[order]
    held = np.bincount(device, minlength=devices)
    first_of_device = (held.cumsum() - held)[device]
    number = np.arange(len(order)) - first_of_device
    in_wave, wave_slot = np.divmod(number, wave)
    event, place = _grouped(moment[order], in_wave, harvest)
    begun = np.minimum(held, lanes)
    event += -(-begun // harvest)[device] - event[first_of_device]
    at = device * num_events + event
    place += at * harvest
    event_time.reshape(-1)[at] = end[order]
    event_lane.reshape(-1)[place] = packing.lane[order]
    event_slot.reshape(-1)[place] = wave_slot
    event_next.reshape(-1)[place] = _next_on_lane(packing, lanes, jobs)[order]
    wave_end.reshape(-1)[device * num_waves + in_wave] = event + 1
    wave_jobs.reshape(-1)[device * num_waves * wave + number] = slot
    waves = (-(-held // wave)).astype(np.int32)

    # before them, the start of each lane's first job, in the order of slots
    first = np.flatnonzero(packing.start == 0)
    first = first[packing.device[first].argsort(kind="stable")]
    place = packing.device[first] * num_events * harvest + ranges(begun)
    event_lane.reshape(-1)[place] = packing.lane[first]
    event_next.reshape(-1)[place] = packing.slot[first]
    return Events(event_time, event_lane, event_slot, event_next, wave_end, wave_jobs, waves)


def _next_on_lane(packing: Packing, lanes: int, jobs: int) -> np.ndarray:
    """Returns the slot of the job that follows each one on its lane (jobs: none)."""
    lane = packing.device * lanes + packing.lane
    order = (lane * (packing.makespan + 1) + packing.start).argsort()
    lane, slot = lane[order], packing.slot[order]
    following = np.full(len(order), jobs)
    following[order[:-1]] = np.where(lane[1:] == lane[:-1], slot[1:], jobs)
    return following


def _grouped(moment: np.ndarray, wave: np.ndarray, harvest: int) -> tuple[np.ndarray, np.ndarray]:
    """Groups exchanges of one moment and one wave into events of at most `harvest` lanes.

    Returns:
      (event, place in the event) of each exchange; events count on from device to device.
    """
    if harvest == 1:
        return np.arange(len(moment)), np.zeros(len(moment), np.int64)
    begins = np.ones(len(moment), bool)
    begins[1:] = (moment[1:] != moment[:-1]) | (wave[1:] != wave[:-1])
    begins = np.flatnonzero(begins)
    place = ranges(np.diff(begins, append=len(moment))) % harvest
    return (place == 0).cumsum() - 1, place
