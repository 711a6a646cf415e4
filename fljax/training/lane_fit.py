"""Fits what a step takes to few timings, and finds the number of lanes that promises most.

A step of L lanes takes a + b * L: what it costs to start its kernels, and what each client adds. A
round takes as many steps as the lanes need for its jobs, which the packer tells without compiling.
So two timings say what a round takes under any number of lanes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np

from fljax.engine.plan.lanes import assign_lanes

# Numbers of lanes that lie nearer to each other make no difference.
_APART = 1.1


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
      [50, 25, 17, 13, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1]
    """
    counts = [jobs]
    for turns in range(2, jobs + 1):
        count = -(-jobs // turns)
        if counts[-1] >= _APART * count:
            counts.append(count)
    return counts


def steps_of_round(
    steps: Sequence[np.ndarray], devices: int, jobs_per_device: int
) -> Callable[[int], int]:
    """Returns the function from a number of lanes to the steps that a round takes.

    Args:
      steps: Of each pass, int64[J] steps of the jobs.
      devices: Number of devices.
      jobs_per_device: Jobs a device can hold.
    """

    def of_lanes(lanes: int) -> int:
        packed = (assign_lanes(each, devices, lanes, jobs_per_device) for each in steps)
        return sum(each.makespan for each in packed)

    return of_lanes


def most_promising(
    seconds: Mapping[int, float],
    counts: Collection[int],
    steps: Callable[[int], int],
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
