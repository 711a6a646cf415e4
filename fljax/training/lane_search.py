"""Searches the number of lanes on accelerators: two timings, a fit, a timing of what it promises.

Wide layouts keep an accelerator busy, but ragged clients make them wait for the longest, and each
program takes seconds to compile. So no direction is followed step by step: the fit (`lane_fit.py`)
says where to look, and the timing there joins it, until nothing promises more.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

from fljax.engine.devices.execution import even_lanes
from fljax.training.execution import JobLayout
from fljax.training.lane_fit import lane_counts, line, most_promising, steps_of_round
from fljax.training.partial_rounds import room_of

# What is not predicted to be that much better is not worth a compilation.
_PROMISING = 0.95
# The second timing is taken on so many times fewer lanes: far enough for a fit.
_FEWER = 4


def search_lanes(
    first: Any,
    compare: Callable[[Any, JobLayout], tuple[Any, Any | None]],
    affords: Callable[[Any], bool],
) -> tuple[Any, bool]:
    """Returns the best timing, and whether the search came to its end.

    Args:
      first: The `Timing` of the layout by rule.
      compare: (best timing, layout) -> (the better one, that of the layout, or None where it does
        not fit into memory).
      affords: (best timing) -> whether another one may be taken.
    """
    federation = first.federation
    devices, capacities = federation.execution.devices, federation.planner.capacities
    placement = federation.execution.placement
    jobs = -(-capacities.cohort // devices)
    passes = [each.jobs.steps[each.jobs.client >= 0] for each in first.plan.passes]
    steps = functools.cache(steps_of_round(passes, devices, capacities.jobs))
    best, timed, most = first, {federation.execution.lanes: first}, jobs
    while (lanes := _next(best, timed, jobs, most, steps)) is not None:
        if not affords(best):
            return best, False
        best, other = compare(best, JobLayout(devices, lanes, placement=placement))
        if other is None:
            most = lanes - 1
        else:
            timed[lanes] = other
    return best, True


def _next(
    best: Any, timed: Mapping[int, Any], jobs: int, most: int, steps: Callable[[int], float]
) -> int | None:
    """Returns the number of lanes to time next, None where none promises more."""
    if len(timed) == 1:
        (lanes,) = timed
        fewer, more = even_lanes(jobs, lanes // _FEWER), even_lanes(jobs, lanes * _FEWER)
        second = fewer if fewer < lanes else more
        return second if lanes != second <= most else None
    seconds = {
        lanes: max(timing.round_seconds - timing.overhead, 1e-9) / steps(lanes)
        for lanes, timing in timed.items()
    }
    counts = [n for n in lane_counts(jobs) if n <= most and _fits(best, timed, n)]
    lanes, predicted = most_promising(seconds, {*counts, *timed}, steps, best.overhead)
    return None if lanes in timed or predicted > _PROMISING * best.round_seconds else lanes


def _fits(best: Any, timed: Mapping[int, Any], lanes: int) -> bool:
    """Returns whether a program of so many lanes fits, as those that were compiled let expect."""
    needed = {lanes: timing.needed for lanes, timing in timed.items()}
    if not all(needed.values()):
        return True
    fixed, each = line(needed)
    return fixed + each * lanes <= room_of(best.federation)
