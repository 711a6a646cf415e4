"""Devices, lanes and waves chosen by trial: jobs of the first round under several layouts.

The best number of lanes depends on model and device: narrow on a CPU, where one client's batch
fills a core, wide on a GPU, which tiny batches leave idle; and ragged clients make wide layouts
wait for the longest. So the round program itself is timed on the first jobs of round 0 and its
seconds are scaled to the whole round. The program that wins is the one the run uses, so its
compilation is not spent twice; what was found is kept in a file for the next run of the same work.

A search that nobody asked for must pay for itself. Another layout is tried as long as the trials,
the next one included, cost a tenth of what all rounds are predicted to take; the trial of the first
layout does not count, since the run needs its program in any case.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from fljax.engine.distributed import exchange
from fljax.engine.packed_plan import pack
from fljax.engine.placement import copied
from fljax.engine.plan import RoundPlan

# No further layout is tried once this much time has gone.
_BUDGET_SECONDS = 8.0
# Of the seconds of all rounds, what a search may take that must pay for itself.
_SHARE = 0.1
# A trial runs at least that long, or the whole round.
_TRIAL_SECONDS = 0.05
_REPEATS = 4
# Rounds below share a dispatch, as many as take about that long, up to the most.
_DISPATCH_SECONDS = 0.1
_MOST_ROUNDS = 10
# Another layout must be that much better, or noise would choose it.
_GAIN = 0.95
# One that takes longer than that is no step on the way to a better one.
_SIMILAR = 1.05
# Above, the arithmetic of a step on a CPU hides all overhead, and other layouts cannot help.
_HEAVY_STEP_SECONDS = 2e-3


class Layout(NamedTuple):
    """A number of devices, of lanes on each, and of slots of a wave (0: by rule)."""

    devices: int
    lanes: int
    wave: int = 0


class Trial(NamedTuple):
    """A layout that is timed on the first waves of round 0.

    Attributes:
      federation: The federation that was built for it.
      plan, facts: Those waves.
      share: What part of the round's steps they take.
      steps: Steps of the device that is last.
      seconds: The least that they took so far.
      overhead: The least that a round without any wave took so far: the sums over devices, the
        server update of all sources.
    """

    federation: Any
    plan: RoundPlan
    facts: Any
    share: float
    steps: int
    seconds: float
    overhead: float

    @property
    def round_seconds(self) -> float:
        """Predicted seconds of a round."""
        return self.overhead + max(self.seconds - self.overhead, 0) / self.share

    @property
    def step_seconds(self) -> float:
        """Seconds of a step of all lanes, its share of what jobs cost included."""
        return self.seconds / self.steps


class Remembered(NamedTuple):
    """A layout as the file holds it, a list of whole numbers.

    Attributes:
      devices, lanes, wave: The layout.
      rounds_per_dispatch: Rounds that share a dispatch under it.
      searched_for: Rounds of the run that the search ended early for; longer ones search again. 0
        where it came to its end.
    """

    devices: int
    lanes: int
    wave: int
    rounds_per_dispatch: int
    searched_for: int

    def serves(self, rounds: int | None) -> bool:
        """Whether a run of so many rounds would have searched no further."""
        return not self.searched_for or (rounds is not None and rounds <= self.searched_for)


def calibrate(
    assemble: Callable[[Layout | None], Any],
    memory: Path | None,
    facts: Mapping[str, Any],
    rounds: int | None = None,
) -> Any:
    """Builds a federation under the layout that trains fastest.

    Args:
      assemble: (layout) -> federation; with None, laid out by rule. It raises ValueError for a
        layout that does not fit into memory.
      memory: File that remembers layouts from run to run; None remembers nothing.
      facts: What the best layout depends on besides the machine, as JSON values.
      rounds: Rounds that the search must pay for itself in; None searches whatever it costs.

    Returns:
      The federation; `calibration_seconds` says what the search cost.
    """
    key = _key(facts)
    known = _recall(memory, key)
    if known is not None and not known.serves(rounds):
        known = None
    own = known and list(known)
    # of several processes, all or none
    if all(found == own for found in exchange(own)) and known is not None:
        try:
            return _dispatching(assemble(Layout(*known[:3])), known.rounds_per_dispatch)
        except ValueError:
            pass  # it fits no longer: less memory, or a file from elsewhere
    begin = time.perf_counter()
    best, is_whole = _search(assemble, rounds)
    chosen = best.federation.execution
    together = int(_DISPATCH_SECONDS / max(best.round_seconds, _DISPATCH_SECONDS / _MOST_ROUNDS))
    together = max(1, together)
    layout = (chosen.devices, chosen.lanes, chosen.wave)
    _remember(memory, key, Remembered(*layout, together, 0 if is_whole else rounds))
    best.federation.calibration_seconds = time.perf_counter() - begin
    return _dispatching(best.federation, together)


def _search(assemble: Callable[[Layout | None], Any], rounds: int | None) -> tuple[Trial, bool]:
    """Returns the best trial, and whether the search came to its end."""
    begin = time.perf_counter()
    best = _trial(assemble(None))
    ends = [begin, time.perf_counter()]
    for direction in (_more_lanes, _fewer_lanes, _one_device, _wider_waves):
        for layout in direction(best):
            if max(exchange(ends[-1] - begin)) > _BUDGET_SECONDS:
                return best, True
            spent, last = ends[-1] - ends[1], ends[-1] - ends[-2]
            # the next trial is taken to cost what the last one did
            cost = max(exchange(spent + last))
            if rounds is not None and cost > _SHARE * rounds * best.round_seconds:
                return best, False
            best, goes_on = _better(assemble, layout, best)
            ends.append(time.perf_counter())
            if not goes_on:
                break
    return best, True


def _dispatching(federation: Any, rounds: int) -> Any:
    """Lets rounds share a dispatch where nobody has said how many, and clients keep nothing."""
    if not federation.options.rounds_per_dispatch and not federation.store.row_bytes:
        federation.rounds_per_dispatch = rounds
    return federation


def _better(
    assemble: Callable[[Layout | None], Any], layout: Layout, best: Trial
) -> tuple[Trial, bool]:
    """Tries a layout; returns the better trial, and whether to go on in its direction."""
    try:
        federation = assemble(layout)
    except ValueError:
        return best, False  # it does not fit into memory, and wider ones will not either
    # anew and by turns: the speed of a machine may change within seconds
    anew = {"seconds": math.inf, "overhead": math.inf}
    best, other = (one._replace(**anew) for one in (best, _trial(federation)))
    for _ in range(_REPEATS):
        best, other = _again(best), _again(other)
    takes, best_takes = other.round_seconds, best.round_seconds
    return (other if takes <= _GAIN * best_takes else best), takes <= _SIMILAR * best_takes


def _more_lanes(best: Trial) -> list[Layout]:
    """Returns layouts to try one after another while they get better, as do the next three."""
    execution, jobs = best.federation.execution, _jobs(best)
    if _on_cpu(best):
        counts = [2, 4, 8, 16] if _is_light(best) else []
    else:
        counts = [execution.lanes * 4**power for power in range(1, 6)]
    return [Layout(execution.devices, n) for n in counts if execution.lanes < n <= jobs]


def _fewer_lanes(best: Trial) -> list[Layout]:
    execution = best.federation.execution
    counts = [] if _on_cpu(best) else [execution.lanes // 4, execution.lanes // 16]
    return [Layout(execution.devices, n) for n in counts if n]


def _one_device(best: Trial) -> list[Layout]:
    """Tiny rounds may cost less than what the devices of a CPU need to meet."""
    execution = best.federation.execution
    free = jax.process_count() == 1 and not best.federation.options.devices
    if execution.devices == 1 or not free or not _is_light(best):
        return []
    return [Layout(1, execution.lanes)]


def _wider_waves(best: Trial) -> list[Layout]:
    execution = best.federation.execution
    if _on_cpu(best) and not _is_light(best):
        return []
    counts = [execution.wave * 4, execution.wave * 16]
    return [Layout(execution.devices, execution.lanes, n) for n in counts if n <= _jobs(best)]


def _on_cpu(trial: Trial) -> bool:
    return trial.federation.mesh.local_devices[0].platform == "cpu"


def _is_light(trial: Trial) -> bool:
    return _on_cpu(trial) and trial.step_seconds <= _HEAVY_STEP_SECONDS


def _jobs(trial: Trial) -> int:
    """Returns the jobs of a device in a large round."""
    cohort = trial.federation.planner.capacities.cohort
    return -(-cohort // trial.federation.execution.devices)


def _trial(federation: Any) -> Trial:
    """Times the first waves of round 0, as many as take long enough."""
    whole, facts = federation.plan_round(0, federation.cohorts.init())
    waves = max(int(one.num_waves.max(initial=0)) for one in whole.passes)
    count = 1
    _seconds(federation, _first_waves(whole, count), facts)  # compiles
    seconds = _seconds(federation, _first_waves(whole, count), facts)
    overhead = _seconds(federation, _first_waves(whole, 0), facts)
    wanted = max(_TRIAL_SECONDS, 3 * overhead)
    while seconds < wanted and count < waves:
        grow = min(8.0, 1.5 * wanted / max(seconds, 1e-6))
        count = min(waves, max(count + 1, int(count * grow)))
        seconds = _seconds(federation, _first_waves(whole, count), facts)
    plan = _first_waves(whole, count)
    steps = max(1, _end(plan))
    return Trial(federation, plan, facts, steps / max(1, _end(whole)), steps, seconds, overhead)


def _again(trial: Trial) -> Trial:
    seconds = _seconds(trial.federation, trial.plan, trial.facts)
    overhead = _seconds(trial.federation, _first_waves(trial.plan, 0), trial.facts)
    return trial._replace(
        seconds=min(trial.seconds, seconds), overhead=min(trial.overhead, overhead)
    )


def _seconds(federation: Any, plan: RoundPlan, facts: Any) -> float:
    """Runs a plan, keeps nothing of it, and returns what it took where it took longest."""
    placed = federation.place(pack(plan))
    rows = federation.store.gather(facts.sources, facts.clients)
    state = jax.block_until_ready(copied(federation.state))
    jax.block_until_ready((placed, rows))
    begin = time.perf_counter()
    jax.block_until_ready(federation.program(state, rows, placed, federation.inputs))
    return max(exchange(time.perf_counter() - begin))


def _first_waves(plan: RoundPlan, waves: int) -> RoundPlan:
    passes = tuple(one._replace(num_waves=np.minimum(one.num_waves, waves)) for one in plan.passes)
    return plan._replace(passes=passes)


def _end(plan: RoundPlan) -> int:
    """Returns the steps of all passes until their last waves end, on the device with the most."""
    ends = np.zeros(len(plan.passes[0].num_waves), np.int64)
    for one in plan.passes:
        for device, waves in enumerate(one.num_waves):
            if waves:
                ends[device] += one.event_time[device, one.wave_end[device, waves - 1] - 1]
    return int(ends.max())


def _key(facts: Mapping[str, Any]) -> str:
    device = jax.devices()[0]
    facts = {
        **facts,
        "device": [device.platform, device.device_kind, jax.device_count()],
        "cores": os.cpu_count(),
    }
    text = json.dumps(facts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _recall(memory: Path | None, key: str) -> Remembered | None:
    found = _read(memory).get(key)
    if not isinstance(found, list) or len(found) != len(Remembered._fields):
        return None
    whole = all(type(number) is int for number in found)
    return Remembered(*found) if whole and min(found[:-1]) >= 1 and found[-1] >= 0 else None


def _remember(memory: Path | None, key: str, layout: Remembered) -> None:
    if memory is None or jax.process_index():
        return
    try:
        memory.parent.mkdir(parents=True, exist_ok=True)
        # replaced in one step: other runs may read it at the same time
        fresh = memory.with_suffix(f".{os.getpid()}")
        fresh.write_text(json.dumps(_read(memory) | {key: layout}, indent=1))
        fresh.replace(memory)
    except OSError:
        return  # the next run calibrates again


def _read(memory: Path | None) -> dict[str, Any]:
    """Returns what a file of layouts holds; an unreadable one costs a calibration, not the run."""
    try:
        known = json.loads(memory.read_text()) if memory and memory.exists() else {}
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def describe(federation: Any) -> str:
    """Returns one line about where a federation trains, for people."""
    plural = lambda count, word: f"{count} {word}{'' if count == 1 else 's'}"  # noqa: E731
    execution, together = federation.execution, federation.rounds_per_dispatch
    seconds = federation.calibration_seconds
    return (
        f"{plural(execution.devices, 'device')} x {plural(execution.lanes, 'lane')}, waves of "
        f"{execution.wave}, data placement: {execution.placement}"
        + (f"; {together} rounds a dispatch" if together > 1 else "")
        + (f"; chosen in {seconds:.1f} s" if seconds else "")
    )
