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

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from fljax.engine.devices.distributed import allgather
from fljax.engine.devices.placement import copied
from fljax.engine.plan.packed_plan import pack
from fljax.engine.plan.round_plan import RoundPlan
from fljax.training.layout_key import Remembered, key_of, recall, remember

# No further layout is tried once this much time has gone.
_BUDGET_SECONDS = 8.0
# Of the seconds of all rounds, what a search may take that must pay for itself.
_SHARE = 0.1
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


class JobLayout(NamedTuple):
    """A number of devices, of lanes on each, and of slots of a wave (0: by rule)."""

    devices: int
    lanes: int
    wave: int = 0


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
    """

    federation: Any
    plan: RoundPlan
    facts: Any
    share: float
    steps: int
    seconds: float
    overhead: float
    built: float = 0.0

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
        return min(max(pays, least), _BUDGET_SECONDS)


def calibrate(
    assemble: Callable[[JobLayout | None], Any],
    memory: Path | None,
    facts: Mapping[str, Any],
    allowance: Allowance,
) -> Any:
    """Builds a federation under the layout that trains fastest.

    Args:
      assemble: (layout) -> federation; with None, laid out by rule. It raises ValueError for a
        layout that does not fit into memory.
      memory: File that remembers layouts from run to run; None remembers nothing.
      facts: What the best layout depends on besides the machine, as JSON values.
      allowance: What the search may cost.

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
            return _dispatching(assemble(JobLayout(*known[:3])), 1e-6 * known.round_us, allowance)
        except ValueError:
            pass  # it fits no longer: less memory, or a file from elsewhere
    begin = time.perf_counter()
    best, is_whole = _search(assemble, allowance)
    spent = time.perf_counter() - begin - best.built
    chosen, round_us = best.federation.execution, math.ceil(1e6 * best.round_seconds)
    allowed = 0 if is_whole else max(1, round(1e3 * allowance.seconds(1e-6 * round_us)))
    layout = (chosen.devices, chosen.lanes, chosen.wave)
    remember(memory, key, Remembered(*layout, round_us, allowed))
    best.federation.calibration_seconds = max(spent, 0.0)
    return _dispatching(best.federation, best.round_seconds, allowance)


def _search(
    assemble: Callable[[JobLayout | None], Any], allowance: Allowance
) -> tuple[Timing, bool]:
    """Returns the best timing, and whether the search came to its end."""
    begin = time.perf_counter()
    best = _timed(assemble, None, allowance)
    last = time.perf_counter() - begin
    spent = last - best.built
    for direction in (_one_device, _more_lanes, _fewer_lanes, _wider_waves):
        for layout in direction(best):
            # the next timing is taken to cost what the last one did
            cost = max(allgather(spent + last))
            if cost > allowance.seconds(best.round_seconds):
                return best, cost > _BUDGET_SECONDS
            begin = time.perf_counter()
            best, goes_on = _better(assemble, layout, best)
            last = time.perf_counter() - begin
            spent += last
            if not goes_on:
                break
    return best, True


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
    try:
        other = _timed(assemble, layout)
    except ValueError:
        return best, False  # it does not fit into memory, and wider ones will not either
    # anew and by turns: the speed of a machine may change within seconds
    anew = {"seconds": math.inf, "overhead": math.inf}
    best, other = (timing._replace(**anew) for timing in (best, other))
    for repetition in range(_REPEATS):
        best, other = _again(best), _again(other)
        takes, best_takes = other.round_seconds, best.round_seconds
        if repetition and max(takes, best_takes) > _CLEARLY * min(takes, best_takes):
            break
    return (other if takes <= _GAIN * best_takes else best), takes <= _SIMILAR * best_takes


def _more_lanes(best: Timing) -> list[JobLayout]:
    """Returns layouts to try one after another while they get better, as do the next three."""
    execution, jobs = best.federation.execution, _jobs(best)
    if _on_cpu(best):
        counts = [4, 16] if _is_light(best) else []
    else:
        counts = [execution.lanes * 4**power for power in range(1, 6)]
    return [JobLayout(execution.devices, n) for n in counts if execution.lanes < n <= jobs]


def _fewer_lanes(best: Timing) -> list[JobLayout]:
    execution = best.federation.execution
    counts = [] if _on_cpu(best) else [execution.lanes // 4, execution.lanes // 16]
    return [JobLayout(execution.devices, n) for n in counts if n]


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
    if _on_cpu(best) and not _is_light(best):
        return []
    counts = [execution.wave * 4, execution.wave * 16]
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
    count = 1
    _seconds(federation, _first_waves(whole, count), facts)  # compiles
    built = time.perf_counter() - begin

    def timing() -> Timing:
        plan = _first_waves(whole, count)
        steps = max(1, _end(plan))
        share = steps / max(1, _end(whole))
        return Timing(federation, plan, facts, share, steps, seconds, overhead, built)

    seconds = _seconds(federation, _first_waves(whole, count), facts)
    overhead = _seconds(federation, _first_waves(whole, 0), facts)
    if allowance and max(allgather(built)) > allowance.seconds(timing().round_seconds):
        return timing()
    wanted = max(_TRIAL_SECONDS, 3 * overhead)
    while seconds < wanted and count < waves:
        grow = min(8.0, 1.5 * wanted / max(seconds, 1e-6))
        count = min(waves, max(count + 1, int(count * grow)))
        seconds = _seconds(federation, _first_waves(whole, count), facts)
    return timing()


def _again(timing: Timing) -> Timing:
    seconds = _seconds(timing.federation, timing.plan, timing.facts)
    overhead = _seconds(timing.federation, _first_waves(timing.plan, 0), timing.facts)
    return timing._replace(
        seconds=min(timing.seconds, seconds), overhead=min(timing.overhead, overhead)
    )


def _seconds(federation: Any, plan: RoundPlan, facts: Any) -> float:
    """Runs a plan, keeps nothing of it, and returns what it took where it took longest."""
    placed = federation.place(pack(plan))
    rows = federation.store.gather(facts.trials, facts.clients)
    state = jax.block_until_ready(copied(federation.state))
    jax.block_until_ready((placed, rows))
    begin = time.perf_counter()
    jax.block_until_ready(federation.program(state, rows, placed, federation.inputs))
    return max(allgather(time.perf_counter() - begin))


def _first_waves(plan: RoundPlan, waves: int) -> RoundPlan:
    passes = tuple(
        each._replace(num_waves=np.minimum(each.num_waves, waves)) for each in plan.passes
    )
    return plan._replace(passes=passes)


def _end(plan: RoundPlan) -> int:
    """Returns the steps of all passes until their last waves end, on the device with the most."""
    ends = np.zeros(len(plan.passes[0].num_waves), np.int64)
    for each in plan.passes:
        for device, waves in enumerate(each.num_waves):
            if waves:
                ends[device] += each.exchange_time[device, each.wave_end[device, waves - 1] - 1]
    return int(ends.max())


def describe(federation: Any) -> str:
    """Returns one line about where a federation trains, for people."""
    plural = lambda count, word: f"{count} {word}{'' if count == 1 else 's'}"  # noqa: E731
    execution, seconds = federation.execution, federation.calibration_seconds
    return (
        f"{plural(execution.devices, 'device')} x {plural(execution.lanes, 'lane')}"
        + (f", data: {execution.placement}" if execution.placement != "device" else "")
        + (f"; layout found in {seconds:.1f} s" if seconds >= 0.1 else "")
    )
