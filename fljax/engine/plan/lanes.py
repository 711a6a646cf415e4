"""Assigns jobs to lanes: longest first, each to the lane that is free earliest, or several at once
to the lanes that are free earliest, where lanes exchange their jobs together."""

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
      makespan: Steps until the last job has ended.
    """

    device: np.ndarray
    lane: np.ndarray
    start: np.ndarray
    slot: np.ndarray
    makespan: int


def assign_lanes(
    steps: np.ndarray, devices: int, lanes: int, jobs_per_device: int, exchange_size: int = 1
) -> LaneAssignment:
    """Assigns jobs to lanes by the longest-processing-time rule (Graham, 1969).

    Where several lanes of a device exchange together, a lane waits after its job until so many have
    ended. Jobs of a device that are sorted by length then wait for little: if all lanes exchange
    together, for no more steps in all than the longest job has.

    Args:
      steps: int64[J] length of each job, in cohort order.
      devices: Number of devices.
      lanes: Lanes on each device.
      jobs_per_device: Jobs a device can hold; at least J / devices.
      exchange_size: Lanes that exchange together.
    """
    total = devices * lanes
    order = (-steps).argsort(kind="stable")
    lengths = (steps[order] * total).tolist()
    begins = np.empty(len(steps), np.int64)
    if exchange_size == 1:
        begins[order] = _begins(lengths, devices, total, jobs_per_device)
    else:
        begins[order] = _begins_together(lengths, devices, total, jobs_per_device, exchange_size)
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


def _begins_together(
    lengths: list[int], devices: int, total: int, jobs_per_device: int, exchange_size: int
) -> np.ndarray:
    """Returns what `_begins` does, where so many lanes of a device exchange together."""
    begins, done = np.empty(len(lengths), np.int64), min(len(lengths), total)
    begins[:done] = range(done)
    # when the jobs of each device's lanes end, as step * total + lane
    ends = [
        sorted(lengths[i] + i for i in range(device, done, devices)) for device in range(devices)
    ]
    room = [jobs_per_device - len(running) for running in ends]
    while done < len(lengths):
        open_devices = [device for device in range(devices) if room[device]]
        device = min(open_devices, key=lambda device: ends[device][exchange_size - 1] // total)
        leaving, running = ends[device][:exchange_size], ends[device][exchange_size:]
        now = leaving[-1] // total
        some = lengths[done : done + min(exchange_size, room[device])]
        start = [now * total + end % total for end in leaving[: len(some)]]
        begins[done : done + len(some)] = start
        ends[device] = sorted([*running, *map(int.__add__, start, some)])
        room[device] -= len(some)
        done += len(some)
    return begins


def shared_exchange_size(steps: np.ndarray, devices: int, lanes: int, exchange_steps: float) -> int:
    """Returns how many lanes of a device should exchange together, two at least.

    Many together make few exchanges, and lanes that wait: what steps and exchanges take in all is
    weighed for some sizes.

    Args:
      steps: int64[J] lengths of the jobs of a round.
      devices: Number of devices.
      lanes: Lanes on each device, two at least.
      exchange_steps: Steps that take as long as an exchange.
    """
    jobs = -(-len(steps) // devices)

    def cost(size: int) -> float:
        makespan = assign_lanes(steps, devices, lanes, 2 * jobs, size).makespan
        return makespan + exchange_steps * -(-jobs // size)

    return min(sorted({max(2, lanes >> power) for power in range(5)}, reverse=True), key=cost)


def capacity(needed: int, floor: int = 1) -> int:
    """Rounds up to a geometric series (ratio about 1.25), so that few shapes ever occur."""
    size = max(floor, 1)
    while size < needed:
        size = max(size + 1, size * 5 // 4)
    return size
