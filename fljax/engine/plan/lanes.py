"""Assigns jobs to lanes: longest first, each to the lane that is free earliest."""

from __future__ import annotations

import heapq
from typing import NamedTuple

import numpy as np

from fljax.engine.plan.counting import ranges


class LaneAssignment(NamedTuple):
    """The lane and the steps of each job.

    Attributes:
      device: int64[J].
      lane: int64[J].
      start: int64[J] step at which the job begins on its lane.
      slot: int64[J] index of the job among those of its device.
      makespan: Steps until the last lane is idle.
    """

    device: np.ndarray
    lane: np.ndarray
    start: np.ndarray
    slot: np.ndarray
    makespan: int


def assign_lanes(
    steps: np.ndarray, devices: int, lanes: int, jobs_per_device: int
) -> LaneAssignment:
    """Assigns jobs to lanes by the longest-processing-time rule (Graham, 1969).

    Args:
      steps: int64[J] length of each job, in cohort order.
      devices: Number of devices.
      lanes: Lanes on each device.
      jobs_per_device: Jobs a device can hold; at least J / devices.
    """
    total = devices * lanes
    order = (-steps).argsort(kind="stable")
    begins = np.empty(len(steps), np.int64)
    begins[order] = _begins((steps[order] * total).tolist(), devices, total, jobs_per_device)
    start, lane = np.divmod(begins, total)
    lane, device = np.divmod(lane, devices)
    slot = np.empty(len(steps), np.int64)
    slot[device.argsort(kind="stable")] = ranges(np.bincount(device, minlength=devices))
    return LaneAssignment(device, lane, start, slot, int((start + steps).max(initial=0)))


def _begins(lengths: list[int], devices: int, total: int, jobs_per_device: int) -> np.ndarray:
    """Returns when and where each job begins, as one number: step * total + lane.

    Lanes are counted over all devices, lane i being on device i % devices; so the lane that is free
    earliest is the smallest number of a heap.

    Args:
      lengths: Steps * total of each job, longest first.
      devices, jobs_per_device: As for `assign_lanes`.
      total: Lanes of all devices.
    """
    begins = np.empty(len(lengths), np.int64)
    free, held, done = list(range(total)), np.zeros(devices, np.int64), 0
    while done < len(lengths):
        # no device is full before it has so many jobs more
        some = slice(done, done + jobs_per_device - held[held < jobs_per_device].max())
        # a heap is sequential by nature; it costs about 0.1 µs a job, in the planner's thread
        begins[some] = [heapq.heapreplace(free, free[0] + length) for length in lengths[some]]
        held += np.bincount(begins[some] % devices, minlength=devices)
        free = [lane for lane in free if held[lane % devices] < jobs_per_device]
        heapq.heapify(free)
        done = some.stop
    return begins


def capacity(needed: int, floor: int = 1) -> int:
    """Rounds up to a geometric series (ratio about 1.25), so that few shapes ever occur."""
    size = max(floor, 1)
    while size < needed:
        size = max(size + 1, size * 5 // 4)
    return size
