"""Runs the trials of one process: group after group, each in the slots of one program."""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from fljax.core.digits import figures
from fljax.core.signals import finishing
from fljax.engine.devices.memory import DoesNotFit
from fljax.recording import progress as progress_bar
from fljax.recording.jsonio import plain
from fljax.studies.costs import Costs
from fljax.studies.criterion import check_proposed, resolve
from fljax.studies.groups import Group, Groups, same_program
from fljax.studies.journal import Journal, Saved
from fljax.studies.results import Results, Row
from fljax.studies.search import TrialScore
from fljax.studies.selection import score
from fljax.studies.slots import Running, Slots, affordable, check_group, host_memory_in_use
from fljax.studies.space import Trial
from fljax.studies.study import Study
from fljax.training.autotuning import describe
from fljax.training.execution import JobLayout, layout_to_go_on_with
from fljax.training.narrowing import narrowing
from fljax.training.options import split_options
from fljax.training.simulation import matmul_precision

# A stretch of rounds takes about so long at most; the first one, of unknown speed, so many rounds.
# After a stretch rows are written. What depends on time is nothing else: trials are judged, and
# slots take others, at rounds that are multiples of `_judge_every` alone.
_STRETCH_SECONDS, _FIRST_ROUNDS = 10.0, 10
# Where the trials of a group do not fit on a single lane.
_REMEDY = "Lower parallel_trials (or memory_gb), batch_size or clients_per_round."
# (trial, its rows, its state), called when a trial is over
Ended = Callable[[Trial, Sequence[Row], str], None]


class Runner:
    """The loop over groups; `stop_requested` ends it after the current stretch of rounds.

    Args:
      study: The study.
      search: Which trials run, and which go on: see `fljax.studies.search`.
      groups: The group of every trial.
      journal: What is written.
      costs: What it takes; added to.
      ended: Called with every trial that is over.
      say: Shows a line to people.
      bar: The progress display.
    """

    def __init__(
        self,
        study: Study,
        search: Any,
        groups: Groups,
        journal: Journal,
        costs: Costs,
        *,
        ended: Ended,
        say: Callable[[str], None],
        bar: Any,
    ):
        self.stop_requested = False
        self._study, self._search, self._groups = study, search, groups
        self._journal, self._costs = journal, costs
        self._ended, self._say, self._bar = ended, say, bar
        # asked for, but not started: no slot was free, or another group runs
        self._waiting: deque[Trial] = deque()
        self._unasked = json.dumps(plain(search.state()))
        self._in_use = host_memory_in_use()
        self._round_seconds = math.inf
        self._begin = time.perf_counter()

    def run(self, saved: Saved | None) -> bool:
        """Runs what is left; returns whether all of it is over.

        Args:
          saved: The checkpoint to go on from; None to start.
        """
        with finishing(self):
            if saved is not None:
                self._costs.go_on(saved.costs)
                self._begin -= self._costs.seconds
                trials = {trial.number: trial for trial in self._journal.trials}
                self._waiting.extend(trials[number] for number in saved.waiting)
                if group := self._running_group(saved):
                    self._run_group(group, saved)
            while not self.stop_requested:
                trial = self._first()
                if trial is None:
                    return True
                self._run_group(self._groups.group_of(trial))
        return False

    def _running_group(self, saved: Saved) -> Group | None:
        """Returns the group that trained when a checkpoint was taken; None where all had ended."""
        trials = {trial.number: trial for trial in self._journal.trials}
        running = [trials[entry[0]] for entry in saved.slots if entry]
        # those that were proposed join their group again
        return [self._groups.group_of(trial) for trial in running][-1] if running else None

    def _run_group(self, group: Group, saved: Saved | None = None) -> None:
        """Runs what is left of a group; where nobody has chosen the lanes, on as many as fit.

        Where memory runs out, it goes on from the last checkpoint, or starts again.

        Args:
          group: The group.
          saved: The checkpoint that it goes on from; None starts it.
        """
        options, _ = split_options(group.experiment.options)
        with _precision_of(group), _with_remedy():
            if options.lanes:
                self._run_group_on(None, saved)
            else:
                narrowing(lambda layout: self._run_group_on(layout, saved), options.wave)

    def _run_group_on(self, layout: JobLayout | None, saved: Saved | None) -> None:
        """Runs what is left of the group whose turn it is.

        Args:
          layout: What is left of one on which memory ran out; None finds one.
          saved: The checkpoint that the group goes on from. Where memory ran out, it is the newest
            one instead.
        """
        if layout is not None:
            saved = self._taken_back()
        running = saved and self._running_group(saved)
        if running:
            self._train_group(self._restored(saved, running, layout))
        elif (trial := self._first()) is not None:
            self._train_group(self._started(self._groups.group_of(trial), layout))

    def _taken_back(self) -> Saved | None:
        """Takes search and trials back to the newest checkpoint; returns it, None without any."""
        saved = self._journal.go_on(self._search)
        if saved is None:
            self._search.load(json.loads(self._unasked))
        trials = {trial.number: trial for trial in self._journal.trials}
        self._groups.keep(trials)
        self._waiting = deque(trials[number] for number in (saved.waiting if saved else ()))
        return saved

    def _first(self) -> Trial | None:
        """Returns the trial that comes next, and leaves it among those that wait."""
        if not self._waiting and (trial := self._search.ask()) is not None:
            self._waiting.append(self._journal.add(trial))
        return self._waiting[0] if self._waiting else None

    def _next(self, group: Group, most: int) -> list[Trial]:
        """Takes the trials that come next, as far as they belong to the group."""
        trials: list[Trial] = []
        while len(trials) < most and (trial := self._first()) is not None:
            if not same_program(self._groups.group_of(trial), group):
                break
            trials.append(self._waiting.popleft())
        return trials

    def _started(self, group: Group, layout: JobLayout | None) -> Slots:
        """Builds the slots of a group and starts as many trials as fit."""
        check_group(group)
        options, run_options = split_options(group.experiment.options)
        journal, study = self._journal, self._study
        trials = self._next(group, study.most_side_by_side(len(group.trials)))
        group = self._groups.group_of(trials[-1])
        if study.is_open:
            check_proposed(study.criterion, group)
        limit = affordable(group, options, self._in_use, study.memory_gb, study.parallel_trials)
        self._waiting.extendleft(reversed(trials[limit:]))
        if layout is None:
            self._costs.groups += 1
            self._costs.execution.append({})
        where = layout_to_go_on_with(None, layout)
        slots = self._built(group, trials[:limit], options, run_options, where)
        self._evaluate(slots, slots.active)
        if study.criterion.metric.startswith("eval/"):
            # refused before anything has trained
            rows = [record for running in slots.active.values() for record in running.records]
            resolve(Results(journal.trials, rows, {}), study.criterion)
        if not run_options.eval_every:
            slots.take_records()
        if study.is_open:
            # what a search has proposed is not asked for again
            journal.write(slots)
            self._save(slots, now=True)
        return slots

    def _restored(self, saved: Saved, group: Group, layout: JobLayout | None) -> Slots:
        trials = {trial.number: trial for trial in group.trials}
        numbers = [entry[0] for entry in saved.slots if entry]
        options, run_options = split_options(group.experiment.options)
        # a slot that rests holds some trial that does not run
        in_slots = [trials[entry[0] if entry else numbers[0]] for entry in saved.slots]
        where = layout_to_go_on_with(saved.execution, layout)
        slots = self._built(group, in_slots, options, run_options, where)
        self._journal.restore(saved, slots)
        return slots

    def _built(self, group, trials, options, run_options, where) -> Slots:
        begin = time.perf_counter()
        slots = Slots(group, trials, options, run_options, **where)
        costs = self._costs
        costs.building += time.perf_counter() - begin
        costs.slots = max(costs.slots, len(trials))
        costs.execution[-1:] = [slots.federation.execution.as_plain()]
        where = describe(slots.federation)
        of = "" if self._study.is_open else f" of {len(group.trials)}"
        self._say(f"{len(trials)}{of} trials side by side; {where}")
        return slots

    def _train_group(self, slots: Slots) -> None:
        """Trains until no trial of the group is left."""
        limit = slots.group.num_rounds
        while slots.active and not self.stop_requested:
            self._journal.write(slots)
            self._train(slots, min(_rounds_to_go(slots, limit), self._most_rounds))
            changed = self._settle(slots, limit)
            self._journal.write(slots)
            self._show()
            self._save(slots, now=changed or self.stop_requested)

    def _settle(self, slots: Slots, limit: int) -> bool:
        """Judges the trials whose round it is; returns whether a slot changed hands.

        Slots that rest are offered to waiting trials then, also where the study is about to stop:
        it goes on as if it had not.
        """
        judged = {
            slot: running
            for slot, running in slots.active.items()
            if _is_judged(slots, running, limit)
        }
        if not judged:
            return False
        due = [slot for slot, running in judged.items() if _is_evaluated(slots, running, limit)]
        self._evaluate(slots, due)
        over = self._judge(slots, judged, due, limit)
        self._journal.write(slots)
        for slot, state in over.items():
            running, slots.slots[slot] = slots.slots[slot], None
            self._end(running, state)
        return bool(over) | bool(self._refill(slots))

    def _save(self, slots: Slots, *, now: bool) -> None:
        """Takes a checkpoint, if it is time for one or `now`."""
        journal, costs = self._journal, self._costs
        costs.seconds = time.perf_counter() - self._begin
        journal.save(slots, self._search, self._waiting, costs, now=now)

    def _end(self, running: Running, state: str) -> None:
        """Tells everyone that a trial is over."""
        rows = self._journal.end(running, state)
        round, value = score(rows, self._study.criterion)
        self._search.end(TrialScore(running.trial, round, value), state)
        self._ended(running.trial, rows, state)
        if self._study.is_open:
            label = running.trial.label()
            self._say(f"trial {running.trial.number} {state}: {figures(value)}, {label}")

    def _refill(self, slots: Slots) -> dict[int, Trial]:
        """Starts trials of the group in slots that rest; returns {slot: trial}."""
        free = [slot for slot, running in enumerate(slots.slots) if running is None]
        fresh = dict(zip(free, self._next(slots.group, len(free)), strict=False))
        if fresh:
            slots.start(fresh, self._groups.group_of(next(iter(fresh.values()))))
            if slots.eval_every:
                self._evaluate(slots, fresh)
        return fresh

    @property
    def _most_rounds(self) -> int:
        """Rounds between looks at the clock and at Ctrl-C."""
        if self._round_seconds == math.inf:
            return _FIRST_ROUNDS
        return max(1, int(_STRETCH_SECONDS / self._round_seconds))

    def _train(self, slots: Slots, num_rounds: int) -> None:
        begin, compiling = time.perf_counter(), slots.compile_seconds
        real, computed = slots.train(num_rounds)
        costs, compiled = self._costs, slots.compile_seconds - compiling
        costs.compiling += compiled
        trained = time.perf_counter() - begin - compiled
        self._round_seconds = max(trained, 1e-9) / num_rounds
        costs.training += trained
        costs.spent([running.trial for running in slots.active.values()], trained, training=True)
        costs.rounds += num_rounds * len(slots.active)
        costs.rows_real += real
        costs.rows_computed += computed

    def _evaluate(self, slots: Slots, which: Iterable[int]) -> None:
        begin, which = time.perf_counter(), list(which)
        slots.evaluate(which)
        seconds = time.perf_counter() - begin
        self._costs.evaluating += seconds
        self._costs.spent([slots.slots[slot].trial for slot in which], seconds)

    def _judge(
        self, slots: Slots, judged: Mapping[int, Running], due: Sequence[int], limit: int
    ) -> dict[int, str]:
        """Tells the search what was found; returns {slot: state} of the trials that are over."""
        over = {slot: "finished" for slot, running in judged.items() if running.round == limit}
        told, scores = [], []
        for slot, running in judged.items():
            if running.diverged is not None:
                # where it is over, however far its slot went on
                running.round = running.diverged
                value = math.nan
            else:
                value = self._value(running.records[-1]) if slot in due else None
            if value is not None:
                told.append(slot)
                scores.append(TrialScore(running.trial, running.round, value))
        answers = self._search.tell_all(scores)
        for slot, reached, goes_on in zip(told, scores, answers, strict=True):
            if not math.isfinite(reached.value):
                over[slot] = "diverged"
            elif not goes_on:
                over.setdefault(slot, "stopped")
        return over

    def _value(self, record: Mapping[str, Any]) -> float | None:
        """Returns what a record says of a trial, or None: an empty cohort has no training loss."""
        criterion = self._study.criterion
        if criterion.metric in record or not criterion.allow_test:
            return record.get(criterion.metric)
        return record.get(criterion.report) if criterion.metric.startswith("eval/") else None

    def _show(self) -> None:
        """Counts the rounds of trials that are over as done, whenever they ended."""
        if self._study.is_open:
            # nobody knows how many trials there will be
            return
        statuses, group_of = self._journal.statuses, self._groups.group_of
        rounds = {trial.number: group_of(trial).num_rounds for trial in self._journal.trials}
        done = sum(
            status.round if status.state == "running" else rounds[number]
            for number, status in statuses.items()
        )
        ended = sum(status.state != "running" for status in statuses.values())
        self._bar.update(done, {"trials": ended})


@contextlib.contextmanager
def _with_remedy():
    """Says of what does not fit on a single lane what else there is to lower."""
    try:
        yield
    except DoesNotFit as error:
        raise DoesNotFit(error.execution, error.reason, _REMEDY) from error


def _precision_of(group: Group):
    return matmul_precision(group.experiment.options.get("matmul_precision"))


def total_rounds(groups: Sequence[Group]) -> int:
    """Returns the rounds of all trials, none being stopped."""
    return sum(group.num_rounds * len(group.trials) for group in groups)


def make_bar(groups: Sequence[Group], shown: bool):
    """Returns the progress display of a study."""
    trials = sum(len(group.trials) for group in groups)
    return progress_bar(total_rounds(groups), 0, shown, label=f"{trials} trials")


def _judge_every(slots: Slots, limit: int) -> int:
    """Returns the rounds between looks for trials that have diverged: a tenth of all, or ten."""
    return min(slots.eval_every or limit, max(10, -(-limit // 10)))


def _is_judged(slots: Slots, running: Running, limit: int) -> bool:
    """Returns whether a trial may be over after its round."""
    looks = (slots.eval_every, _judge_every(slots, limit))
    return any(_is_due(running, every, limit) for every in looks)


def _is_evaluated(slots: Slots, running: Running, limit: int) -> bool:
    return _is_due(running, slots.eval_every, limit) and running.diverged in (None, running.round)


def _is_due(running: Running, every: int, limit: int) -> bool:
    return running.round == limit or bool(every and running.round % every == 0)


def _rounds_to_go(slots: Slots, limit: int) -> int:
    """Returns the rounds until the first trial is to be judged."""
    return min(
        min(every - running.round % every, limit - running.round)
        for running in slots.active.values()
        for every in (slots.eval_every or limit, _judge_every(slots, limit))
    )
