"""Fits what a step takes to few timings, and finds the number of lanes that promises most.

A step of L lanes takes a + b * L: what it costs to start its kernels, and what each client adds. A
round takes as many steps as the lanes need for its jobs, and exchanges, which take as long as some
steps: the packer tells both without compiling. So two timings say what a round takes under any
number of lanes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np

from fljax.engine.plan.lanes import assign_lanes
from fljax.training.execution import EXCHANGE_STEPS, exchange_size_of

# Numbers of lanes that lie nearer to each other make no difference.
_APART = 1.2


def line(values: Mapping[int, float]) -> tuple[float, float]:
    """Returns a and b, neither negative, of the line a + b * lanes that is nearest to values.

    Args:
      values: {lanes: value}, positive; distances are relative to them.

    Example:
      >>> a, b = line({4: 10.0, 16: 22.0})
      >>> round(a, 6), round(b, 6)
      (6.0, 1.0)
    """
    lanes, found = np.array(list(values)), np.array(list(values.values()))
    columns = np.stack([1 / found, lanes / found], axis=1)
    candidates = [np.linalg.lstsq(columns, np.ones(len(lanes)))[0]]
    for place in (0, 1):
        column = columns[:, place]
        candidates.append(np.eye(2)[place] * column.sum() / (column @ column))
    possible = [line for line in candidates if line.min() >= 0]
    nearest = min(possible, key=lambda line: np.square(columns @ line - 1).sum())
    return float(nearest[0]), float(nearest[1])


def lane_counts(jobs: int) -> list[int]:
    """Returns the numbers of lanes that are worth a thought for so many jobs, widest first.

    Each is the least that takes its number of turns, since more lanes would idle in the last one.

    Example:
      >>> lane_counts(50)
      [50, 25, 17, 13, 10, 8, 6, 5, 4, 3, 2, 1]
    """
    counts = [jobs]
    for turns in range(2, jobs + 1):
        count = -(-jobs // turns)
        if counts[-1] >= _APART * count:
            counts.append(count)
    return counts


def steps_of_round(
    steps: Sequence[np.ndarray], devices: int, jobs_per_device: int
) -> Callable[[int], float]:
    """Returns the function from a number of lanes to the steps that a round takes.

    Exchanges count as the steps that take as long.

    Args:
      steps: Of each pass, int64[J] steps of the jobs.
      devices: Number of devices.
      jobs_per_device: Jobs a device can hold.
    """

    def of_pass(steps: np.ndarray, lanes: int, size: int) -> float:
        makespan = assign_lanes(steps, devices, lanes, jobs_per_device, size).makespan
        exchanges = -(-len(steps) // (devices * size))
        return makespan + EXCHANGE_STEPS * exchanges

    def of_lanes(lanes: int) -> float:
        size = exchange_size_of(steps[0], devices, lanes)
        return sum(of_pass(each, lanes, size) for each in steps)

    return of_lanes


def most_promising(
    seconds: Mapping[int, float],
    counts: Collection[int],
    steps: Callable[[int], float],
    overhead: float,
) -> tuple[int, float]:
    """Returns the number of lanes with the least predicted seconds of a round, and these seconds.

    Args:
      seconds: {lanes: seconds of a step} as timed; they count where there are any.
      counts: The numbers of lanes to choose from.
      steps: (lanes) -> steps of a round.
      overhead: Seconds of a round without a step.
    """
    start, each = line(seconds)
    predicted = {
        lanes: overhead + steps(lanes) * seconds.get(lanes, start + each * lanes)
        for lanes in counts
    }
    # of equals the fewest, which take the least memory
    best = min(sorted(counts), key=predicted.__getitem__)
    return best, predicted[best]
