"""Packing jobs onto lanes: longest first, each to the lane that is free earliest."""

from __future__ import annotations

import heapq
from typing import NamedTuple

import numpy as np


class Packing(NamedTuple):
    """Where and when each job runs.

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


def pack(steps: np.ndarray, devices: int, lanes: int, jobs_per_device: int) -> Packing:
    """Packs jobs by the longest-processing-time rule (Graham, 1969).

    Args:
      steps: int64[J] length of each job, in cohort order.
      devices: Number of devices.
      lanes: Lanes on each device.
      jobs_per_device: Jobs a device can hold; at least J / devices.
    """
    count = len(steps)
    device, lane, start = (np.zeros(count, np.int64) for _ in range(3))
    free = [(0, index) for index in range(devices * lanes)]
    held = [0] * devices
    makespan = 0
    # a heap is sequential by nature; it costs about 1 µs a job, in the planner's thread
    for job, length in zip(
        np.argsort(-steps, kind="stable").tolist(), np.sort(-steps).tolist(), strict=True
    ):
        begin, index = heapq.heappop(free)
        where = index % devices
        while held[where] >= jobs_per_device:
            begin, index = heapq.heappop(free)
            where = index % devices
        held[where] += 1
        device[job], lane[job], start[job] = where, index // devices, begin
        end = begin - length
        makespan = max(makespan, end)
        heapq.heappush(free, (end, index))
    order = np.argsort(device, kind="stable")
    slot = np.empty(count, np.int64)
    begins = np.searchsorted(device[order], np.arange(devices))
    slot[order] = np.arange(count) - begins[device[order]]
    return Packing(device, lane, start, slot, makespan)


def capacity(needed: int, floor: int = 1) -> int:
    """Rounds up to a geometric series (ratio about 1.25), so that few shapes ever occur."""
    size = max(floor, 1)
    while size < needed:
        size = max(size + 1, size * 5 // 4)
    return size
