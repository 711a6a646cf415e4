"""Capacities: sizes of plan arrays that hold for a whole run, so that nothing compiles anew."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from fljax.core import random
from fljax.data.dataset import Split
from fljax.engine.devices.execution import ExecutionPlan
from fljax.engine.plan import batching
from fljax.engine.plan.batching import LocalWork
from fljax.engine.plan.lanes import capacity

# Plan arrays up to this many entries always have the largest shape any cohort can need.
_FIXED_CAPACITY_ENTRIES = 1 << 23
# Beyond, they have the size that the largest of so many random cohorts needs, and may grow.
_TRIAL_COHORTS = 64


class Capacities(NamedTuple):
    """Array sizes that hold for a whole run.

    Attributes:
      cohort: Largest number of jobs of a round.
      jobs: Jobs of one device.
      steps: Smallest step capacity of each pass.
      equal_steps: Steps of each job in each pass where all lanes exchange together and every client
        takes as many; else 0.
      staged_rows: Smallest number of staged rows of a device.
    """

    cohort: int
    jobs: int
    steps: tuple[int, ...]
    equal_steps: tuple[int, ...]
    staged_rows: int


def capacities_of(
    split: Split,
    works: Sequence[LocalWork],
    schedules: Sequence[str | int],
    execution: ExecutionPlan,
    max_cohort: int,
    max_steps: int | None = None,
    fewer_steps: bool = False,
) -> Capacities:
    """Returns capacities that no cohort exceeds, or, where these were too large, hardly any.

    Args:
      split: The training split, with its partition.
      works: The local work of each pass.
      schedules: Schedule of each pass, as in `ClientPass`.
      execution: The execution plan.
      max_cohort: Largest number of jobs in a round.
      max_steps: Largest number of local steps of a job, where jobs bring their own.
      fewer_steps: Whether jobs bring their own number, none above what is configured.
    """
    sizes = split.partition.sizes
    lanes = execution.devices * execution.lanes
    # where several exchange together, so many work while the others wait, in the worst case
    busy = lanes - execution.devices * (execution.lanes % execution.exchange_size)
    jobs = min(max_cohort, -(-max_cohort * 3 // (2 * execution.devices)) + 1)
    floors, equal_steps = [], []
    for local, schedule in zip(works, schedules, strict=True):
        steps = batching.steps_per_job(sizes, local)
        own_steps = max_steps is not None and schedule == "local"
        if own_steps:
            steps = np.where(steps > 0, max_steps, 0)
        equal = 0 if own_steps or fewer_steps else _equal_steps(steps, execution)
        waves = -(-max_cohort // lanes)
        floors.append(waves * equal or _floor(steps, max_cohort, busy, entries=lanes * local.width))
        equal_steps.append(equal)
    width = sum(int(np.prod(spec.shape)) for spec in jax.tree.leaves(split.examples.spec))
    staged = min(
        _floor(sizes, max_cohort, 1, entries=execution.devices * width),
        sum(
            _distinct_rows(local, floor * execution.lanes, max_steps is not None or fewer_steps)
            for local, floor in zip(works, floors, strict=True)
        ),
    )
    return Capacities(max_cohort, jobs, tuple(floors), tuple(equal_steps), staged)


def _equal_steps(steps: np.ndarray, execution: ExecutionPlan) -> int:
    """Returns what every client with a batch takes, if it is the same and all lanes exchange
    together; else 0."""
    most = int(steps.max(initial=0))
    equal = (steps[steps > 0] == most).all() and 1 < execution.lanes == execution.exchange_size
    return most if equal else 0


def _floor(lengths: np.ndarray, cohort: int, lanes: int, *, entries: int) -> int:
    """Returns a capacity that no cohort exceeds, or, where that is too large to ship, hardly any.

    Args:
      lengths: int64[N] steps or rows of every client.
      cohort: Largest number of jobs.
      lanes: Lanes that share the lengths; the longest job may come last on its lane.
      entries: Array entries of one unit of capacity.
    """
    largest = np.sort(lengths)[::-1][:cohort]
    bound = capacity(int(-(-largest.sum() // lanes) + (largest[:1].sum() if lanes > 1 else 0)) + 1)
    if bound * entries <= _FIXED_CAPACITY_ENTRIES:
        return bound
    generator = random.generator(0, "planner/capacity")
    drawn = lengths[generator.integers(0, len(lengths), (_TRIAL_COHORTS, cohort))]
    return capacity(int((-(-drawn.sum(1) // lanes) + drawn.max(1)).max()) + 1)


def _distinct_rows(work: LocalWork, steps: int, own_steps: bool) -> int:
    """Returns a bound of the rows that so many steps of one pass read.

    Every epoch of a job reads the same rows, unless each drops others, or the job brings its own
    number of steps.
    """
    same_rows = not own_steps and work.remainder != "drop" and work.epochs is not None
    repeats = int(np.min(work.epochs)) if same_rows else 1
    return -(-steps * work.width // repeats)
