"""Devices, lanes and waves chosen by timing: jobs of the first round under several layouts.

The best number of lanes depends on model and device: narrow on a CPU, where one client's batch
fills a core, wide on a GPU, which tiny batches leave idle; and ragged clients make wide layouts
wait for the longest. So the round program itself is timed on the first jobs of round 0 and its
seconds are scaled to the whole round. The program that wins is the one the run uses, so its
compilation is not spent twice; what was found is kept in a file for the next run of the same work.

A search that nobody asked for must pay for itself. Another layout is tried as long as the timings,
the next one with its compilation included, cost a tenth of what all rounds are predicted to take;
one that was asked for may also take some seconds. The program of the first layout does not count,
since the run needs it in any case. Runs so short that a single timing cannot pay are not even begun
with one: what their rounds take is estimated from their operations.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from fljax.engine.devices.distributed import allgather
from fljax.engine.devices.memory import exhaustion
from fljax.engine.plan.round_plan import RoundPlan
from fljax.training.execution import JobLayout
from fljax.training.form_search import Change, named, search_forms
from fljax.training.lane_search import search_lanes
from fljax.training.layout_key import Remembered, key_of, recall, remember
from fljax.training.narrowing import narrowing
from fljax.training.partial_rounds import (
    apart,
    end_of,
    first_waves,
    fitting_bytes,
    overhead_of,
    proven,
    seconds_of,
)

# No further layout is tried once this much time has gone.
_BUDGET_SECONDS = 8.0
# Of the seconds of all rounds, what a search may take that must pay for itself.
_SHARE = 0.1
# Of long runs on accelerators, whose programs take longer to compile.
_SHARE_OF_LONG_RUNS = 0.01
# What one may take that was asked for, on a CPU: a compilation and its timing.
_ASKED_SECONDS = 1.0
# A timing takes at least that long, or the whole round.
_TRIAL_SECONDS = 0.05
_REPEATS = 4
# Beyond, one of two layouts is better without further repetitions.
_CLEARLY = 1.3
# Rounds below share a dispatch, as many as take about that long, up to the most.
_DISPATCH_SECONDS = 0.1
_MOST_ROUNDS = 10
# A dispatch costs half a millisecond, and the program of several rounds a second to compile.
_ROUNDS_THAT_PAY = 1000
# Another layout must be that much better, or noise would choose it.
_GAIN = 0.95
# One that takes longer than that is no step on the way to a better one.
_SIMILAR = 1.05
# Above, the arithmetic of a step on a CPU hides all overhead, and other layouts cannot help.
_HEAVY_STEP_SECONDS = 5e-4


class Timing(NamedTuple):
    """A layout that is timed on the first waves of round 0.

    Attributes:
      federation: The federation that was built for it.
      plan, facts: Those waves.
      share: What part of the round's steps they take.
      steps: Steps of the device that is last.
      seconds: The least that they took so far.
      overhead: The least that a round without any wave took so far: the sums over devices, the
        server update of all trials.
      built: Seconds until its program was there.
      needed: Bytes of a device that its program takes, on accelerators; 0 where that is not known.
    """

    federation: Any
    plan: RoundPlan
    facts: Any
    share: float
    steps: int
    seconds: float
    overhead: float
    built: float = 0.0
    needed: int = 0

    @property
    def round_seconds(self) -> float:
        """Predicted seconds of a round."""
        return self.overhead + max(self.seconds - self.overhead, 0) / self.share

    @property
    def step_seconds(self) -> float:
        """Seconds of a step of all lanes, its share of what jobs cost included."""
        return self.seconds / self.steps


class Allowance(NamedTuple):
    """The time that a search may cost.

    Attributes:
      rounds: Rounds of the run.
      asked: Whether somebody asked for the search.
    """

    rounds: int
    asked: bool = False

    def seconds(self, round_seconds: float) -> float:
        """Returns how long it may take where a round takes so long."""
        pays = _SHARE * self.rounds * round_seconds
        on_cpu = jax.default_backend() == "cpu"
        least = (_ASKED_SECONDS if on_cpu else _BUDGET_SECONDS) if self.asked else 0.0
        long = 0.0 if on_cpu else _SHARE_OF_LONG_RUNS * self.rounds * round_seconds
        return min(max(pays, least), max(_BUDGET_SECONDS, long))


def calibrate(
    assemble: Callable[[JobLayout | None], Any],
    memory: Path | None,
    facts: Mapping[str, Any],
    allowance: Allowance,
    changes: Callable[[], Sequence[Change]] = tuple,
) -> Any:
    """Builds a federation under the layout that trains fastest.

    Args:
      assemble: (layout) -> federation; with None, laid out by rule. It raises ValueError for a
        layout that does not fit into memory.
      memory: File that remembers layouts from run to run; None remembers nothing.
      facts: What the best layout depends on besides the machine, as JSON values.
      allowance: What the search may cost.
      changes: () -> other forms of operations that are worth a timing; asked where a search runs.

    Returns:
      The federation; `calibration_seconds` says what the search cost beyond the program it found.
    """
    key = key_of(facts)
    known = recall(memory, key)
    if known is not None and not known.serves(allowance.seconds):
        known = None
    own = known and list(known)
    # of several processes, all or none
    if all(found == own for found in allgather(own)) and known is not None:
        try:
            federation = proven(assemble(known.layout))
            return _dispatching(federation, 1e-6 * known.round_us, allowance)
        except ValueError:
            pass  # it fits no longer: less memory, or a file from elsewhere
    begin = time.perf_counter()
    keep = functools.partial(_keep, memory, key)
    found = _search(assemble, allowance, changes, keep)
    best = found.best
    spent = time.perf_counter() - begin - best.built
    keep(found)
    best.federation.calibration_seconds = max(spent, 0.0)
    return _dispatching(best.federation, best.round_seconds, allowance)


class Found(NamedTuple):
    """The outcome of a search.

    Attributes:
      best: The best timing.
      allowed: Where the search was cut short, (seconds of a round) -> seconds; a run that may
        search longer than these searches again. None where it came to its end.
    """

    best: Timing
    allowed: Callable[[float], float] | None = None


def _keep(memory: Path | None, key: str, found: Found) -> None:
    """Remembers what a search has found."""
    chosen, round_us = found.best.federation.execution, math.ceil(1e6 * found.best.round_seconds)
    allowed_ms = 0
    if found.allowed is not None:
        allowed_ms = max(1, round(1e3 * found.allowed(1e-6 * round_us)))
    layout = (chosen.devices, chosen.lanes, chosen.wave)
    remember(memory, key, Remembered(*layout, round_us, allowed_ms, *chosen.forms))


def _search(
    assemble: Callable[[JobLayout | None], Any],
    allowance: Allowance,
    changes: Callable[[], Sequence[Change]],
    keep: Callable[[Found], None],
) -> Found:
    """Returns the best layout that was found in the time that is allowed."""
    begin = time.perf_counter()
    best = narrowing(lambda layout: _timed(assemble, layout, allowance))
    last = time.perf_counter() - begin
    if not _on_cpu(best):
        return _search_by_fit(assemble, allowance, changes, keep, best, last)
    spent = last - best.built
    for direction in (_one_device, _more_lanes, _wider_waves):
        for layout in direction(best):
            # the next timing is taken to cost what the last one did
            cost = max(allgather(spent + last))
            if cost > allowance.seconds(best.round_seconds):
                return Found(best, None if cost > _BUDGET_SECONDS else allowance.seconds)
            begin = time.perf_counter()
            best, goes_on = _better(assemble, layout, best)
            last = time.perf_counter() - begin
            spent += last
            if not goes_on:
                break
    return Found(best)


def _search_by_fit(
    assemble: Callable[[JobLayout | None], Any],
    allowance: Allowance,
    changes: Callable[[], Sequence[Change]],
    keep: Callable[[Found], None],
    first: Timing,
    last: float,
) -> Found:
    """Searches lanes by `search_lanes`, then forms of operations by `search_forms`.

    The clock starts after the first timing, whose program is needed in any case. What was cut short
    is remembered with the time that it took: with its programs in the cache, the next run gets
    further in the same time.
    """
    spent = 0.0

    def affords(best: Timing) -> bool:
        # the next timing is taken to cost what the last one did
        return max(allgather(spent + last)) <= allowance.seconds(best.round_seconds)

    def compare(best: Timing, layout: JobLayout) -> tuple[Timing, Timing | None]:
        nonlocal spent, last
        begin = time.perf_counter()
        try:
            pair = _compared(assemble, layout, best)
        finally:
            last = time.perf_counter() - begin
            spent += last
        return (best, None) if pair is None else (_chosen(*pair), pair[1])

    def distance(best: Timing, other: Timing) -> float:
        return apart(best.federation, other.federation, best.plan, best.facts)

    best, is_whole = search_lanes(first, compare, affords)
    if is_whole and (forms := changes()):
        # should a kernel end the process, the next one tries it no more
        keep(Found(best))
        best, is_whole = search_forms(best, forms, compare, affords, distance)
    return Found(best, None if is_whole else lambda _: spent)


def _dispatching(federation: Any, round_seconds: float, allowance: Allowance) -> Any:
    """Lets rounds share a dispatch where nobody has said how many, and nothing happens between."""
    between = federation.store.row_bytes or federation.cohorts.feedback != "none"
    free = not federation.options.rounds_per_dispatch and not between
    if free and (allowance.asked or allowance.rounds >= _ROUNDS_THAT_PAY):
        most = max(round_seconds, _DISPATCH_SECONDS / _MOST_ROUNDS)
        federation.rounds_per_dispatch = max(1, int(_DISPATCH_SECONDS / most))
    return federation


def _better(
    assemble: Callable[[JobLayout | None], Any], layout: JobLayout, best: Timing
) -> tuple[Timing, bool]:
    """Times a layout; returns the better timing, and whether to go on in its direction."""
    pair = _compared(assemble, layout, best)
    if pair is None:
        return best, False  # it does not fit into memory, and wider ones will not either
    best, other = pair
    return _chosen(best, other), other.round_seconds <= _SIMILAR * best.round_seconds


def _compared(
    assemble: Callable[[JobLayout | None], Any], layout: JobLayout, best: Timing
) -> tuple[Timing, Timing] | None:
    """Times a layout, and the best one anew; None where it does not fit into memory."""
    try:
        other = _timed(assemble, layout)
    except ValueError:
        return None
    # by turns: the speed of a machine may change within seconds
    anew = {"seconds": math.inf, "overhead": math.inf}
    best, other = (timing._replace(**anew) for timing in (best, other))
    for repetition in range(_REPEATS):
        best, other = _again(best), _again(other)
        takes, best_takes = other.round_seconds, best.round_seconds
        if repetition and max(takes, best_takes) > _CLEARLY * min(takes, best_takes):
            break
    return best, other


def _chosen(best: Timing, other: Timing) -> Timing:
    return other if other.round_seconds <= _GAIN * best.round_seconds else best


def _more_lanes(best: Timing) -> list[JobLayout]:
    """Returns layouts to try one after another while they get better, as do the next two."""
    execution = best.federation.execution
    counts = [4, 16] if _is_light(best) else []
    return [JobLayout(execution.devices, n) for n in counts if execution.lanes < n <= _jobs(best)]


def _one_device(best: Timing) -> list[JobLayout]:
    """Tiny rounds may cost less than what the devices of a CPU need to meet."""
    execution = best.federation.execution
    free = jax.process_count() == 1 and not best.federation.options.devices
    meeting = 3 * best.overhead >= best.round_seconds
    if execution.devices == 1 or not free or not meeting or not _is_light(best):
        return []
    return [JobLayout(1, execution.lanes)]


def _wider_waves(best: Timing) -> list[JobLayout]:
    execution = best.federation.execution
    counts = [execution.wave * 4, execution.wave * 16] if _is_light(best) else []
    return [JobLayout(execution.devices, execution.lanes, n) for n in counts if n <= _jobs(best)]


def _on_cpu(timing: Timing) -> bool:
    return timing.federation.mesh.local_devices[0].platform == "cpu"


def _is_light(timing: Timing) -> bool:
    return _on_cpu(timing) and timing.step_seconds <= _HEAVY_STEP_SECONDS


def _jobs(timing: Timing) -> int:
    """Returns the jobs of a device in a large round."""
    cohort = timing.federation.planner.capacities.cohort
    return -(-cohort // timing.federation.execution.devices)


def _timed(
    assemble: Callable[[JobLayout | None], Any],
    layout: JobLayout | None,
    allowance: Allowance | None = None,
) -> Timing:
    """Times the first waves of round 0, as many as take long enough.

    Args:
      assemble: As for `calibrate`.
      layout: What is timed; None is the layout by rule.
      allowance: Of the search; where it allows no timing of another layout, a first impression will
        do.
    """
    begin = time.perf_counter()
    federation = assemble(layout)
    whole, facts = federation.plan_round(0, federation.cohorts.init())
    waves = max(int(plan.num_waves.max(initial=0)) for plan in whole.passes)
    count, needed = 1, fitting_bytes(federation, whole, facts)
    with exhaustion(federation.execution):
        seconds_of(federation, first_waves(whole, count), facts)  # compiles
    built = time.perf_counter() - begin

    def timing() -> Timing:
        plan = first_waves(whole, count)
        steps = max(1, end_of(plan))
        share = steps / max(1, end_of(whole))
        return Timing(federation, plan, facts, share, steps, seconds, overhead, built, needed)

    seconds = seconds_of(federation, first_waves(whole, count), facts)
    overhead = overhead_of(federation, whole, facts)
    if allowance and max(allgather(built)) > allowance.seconds(timing().round_seconds):
        return timing()
    wanted = max(_TRIAL_SECONDS, 3 * overhead)
    while seconds < wanted and count < waves:
        grow = min(8.0, 1.5 * wanted / max(seconds, 1e-6))
        count = min(waves, max(count + 1, int(count * grow)))
        seconds = seconds_of(federation, first_waves(whole, count), facts)
    return timing()


def _again(timing: Timing) -> Timing:
    seconds = seconds_of(timing.federation, timing.plan, timing.facts)
    overhead = overhead_of(timing.federation, timing.plan, timing.facts)
    return timing._replace(
        seconds=min(timing.seconds, seconds), overhead=min(timing.overhead, overhead)
    )


def describe(federation: Any) -> str:
    """Returns one line about where a federation trains, for people."""
    plural = lambda count, word: f"{count} {word}{'' if count == 1 else 's'}"  # noqa: E731
    execution, seconds = federation.execution, federation.calibration_seconds
    return (
        f"{plural(execution.devices, 'device')} x {plural(execution.lanes, 'lane')}"
        + (f", data: {execution.placement}" if execution.placement != "device" else "")
        + (f", {forms}" if (forms := named(execution.forms)) else "")
        + (f"; layout found in {seconds:.1f} s" if seconds >= 0.1 else "")
    )
