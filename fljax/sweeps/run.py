"""Runs the trials of one process: group after group, each in the slots of one program."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from fljax.calibration import describe
from fljax.loop import finish_on_interrupt
from fljax.options import split_options
from fljax.recording import progress as progress_bar
from fljax.simulation import matmul_precision, with_saved_execution
from fljax.sweeps.groups import Group
from fljax.sweeps.journal import Journal, Saved
from fljax.sweeps.memory import affordable, host_memory_in_use
from fljax.sweeps.results import Results, Row
from fljax.sweeps.search import Report, Search
from fljax.sweeps.selection import resolve
from fljax.sweeps.settings import Settings
from fljax.sweeps.slots import Slots
from fljax.sweeps.trials import Trial

# A stretch of rounds takes about so long at most; the first one, of unknown speed, so many rounds.
_STRETCH_SECONDS, _FIRST_ROUNDS = 10.0, 10
# (trial, its rows, its state), called when a trial is over
Ended = Callable[[Trial, Sequence[Row], str], None]


@dataclasses.dataclass
class Costs:
    """What a process spent.

    Attributes:
      groups: Groups that were built.
      slots: The most trials that trained side by side.
      building: Seconds of building, of finding a layout, and of what that compiled.
      compiling: Seconds of dispatches that compiled.
      training: Seconds of all other rounds.
      evaluating: Seconds of evaluations, what they compiled included.
      rounds: Rounds of all trials together.
    """

    groups: int = 0
    slots: int = 0
    building: float = 0.0
    compiling: float = 0.0
    training: float = 0.0
    evaluating: float = 0.0
    rounds: int = 0


class Surroundings(NamedTuple):
    """What all groups share.

    Attributes:
      settings: Of the sweep.
      search: Which trials run, and which go on.
      journal: What is written.
      costs: What it takes.
      ended: Called with every trial that is over.
      say: Shows a line to people.
      bar: The progress display.
    """

    settings: Settings
    search: Search
    journal: Journal
    costs: Costs
    ended: Ended
    say: Callable[[str], None]
    bar: Any


class Runner:
    """The loop over groups; `stop_requested` ends it after the current stretch of rounds."""

    def __init__(self, groups: Sequence[Group], surroundings: Surroundings):
        self.surroundings = surroundings
        self.stop_requested = False
        self._group_of = {trial.number: group for group in groups for trial in group.trials}
        # asked for while another group ran
        self._pending: Trial | None = None
        self._in_use = host_memory_in_use()
        self._round_seconds = math.inf

    def run(self, resume: bool) -> bool:
        """Runs what is left; returns whether all of it is over."""
        journal, search = self.surroundings.journal, self.surroundings.search
        with finish_on_interrupt(self):
            saved = journal.go_on(search) if resume else journal.start_anew()
            if saved is not None:
                trials = {trial.number: trial for trial in journal.trials}
                self._pending = trials.get(saved.pending)
                if any(saved.slots):
                    running = next(entry for entry in saved.slots if entry)
                    with _precision_of(self._group_of[running[0]]):
                        self._run_group(self._restored(saved, trials))
            while not self.stop_requested:
                self._pending = self._pending or search.ask()
                if self._pending is None:
                    return True
                group = self._group_of[self._pending.number]
                with _precision_of(group):
                    self._run_group(self._started(group))
        return False

    def _next(self, group: Group) -> Trial | None:
        """Returns the trial that comes next, if it belongs to the group."""
        self._pending = self._pending or self.surroundings.search.ask()
        if self._pending is None or self._group_of[self._pending.number] is not group:
            return None
        trial, self._pending = self._pending, None
        return trial

    def _started(self, group: Group) -> Slots:
        """Builds the slots of a group and starts as many trials as fit."""
        options, run_options = split_options(group.experiment.options)
        settings = self.surroundings.settings
        if settings.search == "halving" and not run_options.eval_every:
            raise ValueError("Halving judges trials at evaluations: set eval_every above 0.")
        limit = affordable(group, options, self._in_use, settings.memory_gb, settings.together)
        trials = []
        while len(trials) < limit and (trial := self._next(group)) is not None:
            trials.append(trial)
        slots = self._built(group, trials, options, run_options)
        self._evaluate(slots, range(len(trials)))
        if settings.criterion.metric.startswith("eval/"):
            # refused before anything has trained
            rows = [record for one in slots.active.values() for record in one.records]
            resolve(Results(self.surroundings.journal.trials, rows, {}), settings.criterion)
        if not run_options.eval_every:
            slots.take_records()
        return slots

    def _restored(self, saved: Saved, trials: Mapping[int, Trial]) -> Slots:
        numbers = [entry[0] for entry in saved.slots if entry]
        group = self._group_of[numbers[0]]
        options, run_options = split_options(group.experiment.options)
        options = with_saved_execution(options, {"execution": saved.execution})
        # a slot that rests holds some trial that does not run
        in_slots = [trials[entry[0] if entry else numbers[0]] for entry in saved.slots]
        slots = self._built(group, in_slots, options, run_options)
        self.surroundings.journal.restore(saved, slots)
        return slots

    def _built(self, group, trials, options, run_options) -> Slots:
        begin = time.perf_counter()
        slots = Slots(group, trials, options, run_options)
        costs = self.surroundings.costs
        costs.building += time.perf_counter() - begin
        costs.groups += 1
        costs.slots = max(costs.slots, len(trials))
        where = describe(slots.federation)
        self.surroundings.say(f"{len(trials)} of {len(group.trials)} trials together; {where}")
        return slots

    def _run_group(self, slots: Slots) -> None:
        """Trains until no trial of the group is left."""
        journal, search = self.surroundings.journal, self.surroundings.search
        every, limit = slots.eval_every, slots.group.num_rounds
        while slots.active and not self.stop_requested:
            journal.write(slots)
            self._train(slots, min(_rounds_to_go(slots, every, limit), self._most_rounds))
            due = [
                slot
                for slot, one in slots.active.items()
                if one.round == limit or (every and one.round % every == 0)
            ]
            self._evaluate(slots, due)
            over = self._judge(slots, due, limit)
            journal.write(slots)
            for slot, state in over.items():
                running, slots.slots[slot] = slots.slots[slot], None
                self.surroundings.ended(running.trial, journal.end(running, state), state)
            if not self.stop_requested:
                self._refill(slots)
                journal.write(slots)
            self._show()
            journal.save(slots, search, self._pending, now=bool(over) or self.stop_requested)

    def _refill(self, slots: Slots) -> None:
        """Starts trials of the group in slots that rest."""
        fresh: dict[int, Trial] = {}
        for slot in (slot for slot, one in enumerate(slots.slots) if one is None):
            if (trial := self._next(slots.group)) is None:
                break
            fresh[slot] = trial
        if fresh:
            slots.start(fresh)
            if slots.eval_every:
                self._evaluate(slots, fresh)

    @property
    def _most_rounds(self) -> int:
        """Rounds between looks at the clock and at Ctrl-C."""
        if self._round_seconds == math.inf:
            return _FIRST_ROUNDS
        return max(1, int(_STRETCH_SECONDS / self._round_seconds))

    def _train(self, slots: Slots, num_rounds: int) -> None:
        begin, compiling = time.perf_counter(), slots.compile_seconds
        slots.train(num_rounds)
        costs, compiled = self.surroundings.costs, slots.compile_seconds - compiling
        costs.compiling += compiled
        trained = time.perf_counter() - begin - compiled
        self._round_seconds = max(trained, 1e-9) / num_rounds
        costs.training += trained
        costs.rounds += num_rounds * len(slots.active)

    def _evaluate(self, slots: Slots, which: Iterable[int]) -> None:
        begin = time.perf_counter()
        slots.evaluate(list(which))
        self.surroundings.costs.evaluating += time.perf_counter() - begin

    def _judge(self, slots: Slots, due: Sequence[int], limit: int) -> dict[int, str]:
        """Tells the search what was found; returns {slot: state} of the trials that are over."""
        over = {slot: "finished" for slot, one in slots.active.items() if one.round == limit}
        told, reports = [], []
        for slot, one in slots.active.items():
            value = math.nan if one.diverged else self._value(one.records[-1])
            if value is not None and (slot in due or one.diverged):
                told.append(slot)
                reports.append(Report(one.trial, one.round, value))
        answers = self.surroundings.search.tell_all(reports)
        for slot, report, goes_on in zip(told, reports, answers, strict=True):
            if not math.isfinite(report.value):
                over[slot] = "diverged"
            elif not goes_on:
                over.setdefault(slot, "stopped")
        return over

    def _value(self, record: Mapping[str, Any]) -> float | None:
        """Returns what a record says of a trial, or None: an empty cohort has no training loss."""
        criterion = self.surroundings.settings.criterion
        if criterion.metric in record or not criterion.allow_test:
            return record.get(criterion.metric)
        return record.get(criterion.report) if criterion.metric.startswith("eval/") else None

    def _show(self) -> None:
        """Counts the rounds of trials that are over as done, whenever they ended."""
        statuses = self.surroundings.journal.statuses
        done = sum(
            status.round if status.state == "running" else self._group_of[number].num_rounds
            for number, status in statuses.items()
        )
        ended = sum(status.state != "running" for status in statuses.values())
        self.surroundings.bar.update(done, {"trials": ended})


def _precision_of(group: Group):
    return matmul_precision(group.experiment.options.get("matmul_precision"))


def total_rounds(groups: Sequence[Group]) -> int:
    """Returns the rounds of all trials, none being stopped."""
    return sum(group.num_rounds * len(group.trials) for group in groups)


def make_bar(groups: Sequence[Group], shown: bool):
    """Returns the progress display of a sweep."""
    trials = sum(len(group.trials) for group in groups)
    return progress_bar(total_rounds(groups), 0, shown, label=f"{trials} trials")


def _rounds_to_go(slots: Slots, every: int, limit: int) -> int:
    """Returns the rounds until the first trial is to be evaluated."""
    rounds = [one.round for one in slots.active.values()]
    return min(min(limit - at, (every - at % every) if every else limit) for at in rounds)
