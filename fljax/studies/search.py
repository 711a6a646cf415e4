"""Searches: which trial runs next, and which goes on.

A search is anything with these five methods; what runs the trials calls no others:

    ask() -> Trial | None            the next trial, with a number of its own; None: none for now,
                                     and none at all where no trial runs
    tell_all(scores) -> list[bool]  values of an evaluation that arrived together: which go on
    end(score, state)               a trial is over: what it counts with, and whether it is
                                     "finished", "stopped" or "diverged"
    state() -> dict, load(dict)      for checkpoints; the state can be written as JSON

`Search` gives out trials that were listed. A search of one's own proposes them as it goes, knowing
what it was told so far: `fljax.sweep(config, workdir, search=...)`. After a kill it is told again
what happened since the last checkpoint, and asked again for what was asked for since then.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from fljax.studies.space import Trial


class TrialScore(NamedTuple):
    """The score of a trial: the value of the metric that is searched on, after a round.

    Example:
      >>> studies.TrialScore(studies.Trial(0, {"client_lr": 0.1}), round=10, value=0.8).value
      0.8
    """

    trial: Trial
    round: int
    value: float


METHODS = ("ask", "tell_all", "end", "state", "load")


class Search:
    """Gives out a list of trials in order, and stops those that fall behind at a rung.

    A rung is a number of rounds. A trial meets it with the first value told at or after that many
    rounds; a value that is the first beyond several rungs counts at the highest. Of n values at a
    rung the best n / reduction, rounded up, go on, so the best one so far always does. Among equals
    the trial of the lower number is better.

    A value that is not finite stops its trial, which has diverged, and is not compared with others.

    A trial is judged once at a rung, by the values told so far, so order matters: the first to
    arrive always goes on. Values that are told together are compared with one another, whatever
    their order.

    Example:
      >>> search = studies.Search(studies.repeat([{"client_lr": 0.1}]))
      >>> search.ask().values, search.ask()
      ({'client_lr': 0.1}, None)
    """

    def __init__(
        self,
        trials: Sequence[Trial],
        rungs: Sequence[int] = (),
        reduction: int = 3,
        maximize: bool = True,
    ):
        """Starts a search; see `given` and `successive_halving`."""
        self._trials = tuple(trials)
        if not self._trials:
            raise ValueError("There is no trial to run.")
        self._numbers = {trial.number for trial in self._trials}
        if len(self._numbers) < len(self._trials):
            raise ValueError("Two trials have the same number; number them with repeat.")
        self._reduction = reduction
        self._sign = -1.0 if maximize else 1.0
        self._left = deque(self._trials)
        # {rung: {number of the trial: value}}, and {number of the trial: round it was stopped at}
        self._rungs: dict[int, dict[int, float]] = {rung: {} for rung in sorted(rungs)}
        self._stopped: dict[int, int] = {}

    def ask(self) -> Trial | None:
        """Returns the next trial; None where none is left."""
        return self._left.popleft() if self._left else None

    def tell(self, trial: Trial, round: int, value: float) -> bool:
        """Takes note of a trial's value and returns whether the trial goes on.

        Args:
          trial: From `ask`.
          round: Rounds that the trial has completed.
          value: Of the metric that is searched on.

        Raises:
          ValueError: If no such trial is part of the search.
        """
        return self.tell_all([TrialScore(trial, round, value)])[0]

    def tell_all(self, scores: Sequence[TrialScore]) -> list[bool]:
        """Takes note of all values first and returns then which trials go on, in order.

        Raises:
          ValueError: If a trial is not part of the search, or there twice.
        """
        numbers = [score.trial.number for score in scores]
        if unknown := [number for number in numbers if number not in self._numbers]:
            raise ValueError(f"Trial {unknown[0]} is not part of this search.")
        if len(set(numbers)) < len(numbers):
            raise ValueError("A trial can be told only one value at a time.")
        rungs = [self._note(*score) for score in scores]
        for number, score, rung in zip(numbers, scores, rungs, strict=True):
            behind = rung is not None and self._falls_behind(number, rung)
            if behind or not math.isfinite(score.value):
                self._stopped.setdefault(number, score.round)
        return [number not in self._stopped for number in numbers]

    def end(self, score: TrialScore, state: str) -> None:
        """Takes no note of a trial that is over: what `tell_all` says of it is all that counts."""

    def state(self) -> dict[str, Any]:
        """Returns all that the search knows, as JSON can hold it."""
        return {
            "asked": sorted(self._numbers - {trial.number for trial in self._left}),
            "rungs": [
                {"round": rung, "values": [[n, v] for n, v in sorted(values.items())]}
                for rung, values in self._rungs.items()
            ],
            "stopped": [[number, round] for number, round in sorted(self._stopped.items())],
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Goes on from a state of a search of the same trials, or of some of them.

        Raises:
          ValueError: If the saved search has other rungs, or has given out other trials.
        """
        saved = [rung["round"] for rung in state["rungs"]]
        if saved != list(self._rungs):
            raise ValueError(
                f"The saved search judges trials at rounds {saved}, this one at "
                f"{list(self._rungs)}. Resume with the settings that it was started with."
            )
        asked = set(state["asked"])
        if unknown := asked - self._numbers:
            raise ValueError(
                f"The saved search has given out trial {min(unknown)}, which this one has not. "
                "Resume with the search space that it was started with, or a larger one."
            )
        self._left = deque(trial for trial in self._trials if trial.number not in asked)
        self._rungs = {rung["round"]: dict(map(tuple, rung["values"])) for rung in state["rungs"]}
        self._stopped = dict(map(tuple, state["stopped"]))

    def _note(self, trial: Trial, round: int, value: float) -> int | None:
        """Enters a value at the rung it meets and returns the rung; None where it meets none."""
        rung = max((rung for rung in self._rungs if rung <= round), default=None)
        judged = trial.number in self._stopped or trial.number in self._rungs.get(rung, ())
        if rung is None or judged or not math.isfinite(value):
            return None
        self._rungs[rung][trial.number] = float(value)
        return rung

    def _falls_behind(self, number: int, rung: int) -> bool:
        values = self._rungs[rung]
        ranking = sorted(values, key=lambda number: (self._sign * values[number], number))
        return ranking.index(number) >= math.ceil(len(ranking) / self._reduction)


def given(trials: Sequence[Trial]) -> Search:
    """Returns the search of a grid or of random configurations: each trial runs to its end.

    Args:
      trials: From `repeat`.

    Example:
      >>> studies.given(studies.repeat([{"client_lr": 0.1}])).ask().number
      0
    """
    return Search(trials)


def successive_halving(
    trials: Sequence[Trial],
    min_rounds: int,
    max_rounds: int,
    reduction: int = 3,
    maximize: bool = True,
) -> Search:
    """Returns asynchronous successive halving, which stops poor trials early.

    ASHA (Li et al., 2018, arXiv:1810.05934) in the form that stops trials instead of promoting
    paused ones: nothing waits for a rung to fill, and no trial is resumed later. At rounds
    min_rounds · reductionᵏ below `max_rounds` a trial goes on if its value is among the best
    1 / reduction of those told there so far; see `Search` for what that means exactly.

    Every seed of a configuration is a trial of its own here and is judged by itself.

    Args:
      trials: From `repeat`, in the order in which they start.
      min_rounds: Rounds before a trial can be stopped.
      max_rounds: Rounds of a trial that is never stopped.
      reduction: One in how many trials goes on.
      maximize: Whether high values are good, as accuracies are; False for losses.

    Example:
      >>> trials = studies.repeat([{"client_lr": rate} for rate in (0.01, 0.1, 1.0)])
      >>> search = studies.successive_halving(trials, min_rounds=10, max_rounds=90)
      >>> search.tell_all([studies.TrialScore(trial, 10, trial.number) for trial in trials])
      [False, False, True]

    Raises:
      ValueError: If no trial could ever be stopped, or `reduction` is not a whole number above 1.
    """
    if reduction < 2 or int(reduction) != reduction:
        raise ValueError(
            f"reduction = {reduction} must be a whole number of at least 2: one in {reduction} "
            "trials would go on."
        )
    if not 1 <= min_rounds < max_rounds:
        raise ValueError(
            f"min_rounds = {min_rounds} and max_rounds = {max_rounds}: trials can be stopped from "
            "round 1 to the one before their last. Choose 1 <= min_rounds < max_rounds."
        )
    rungs = rungs_of(min_rounds, max_rounds, reduction)
    return Search(trials, rungs, int(reduction), maximize)


def rungs_of(min_rounds: int, max_rounds: int, reduction: int) -> list[int]:
    """Returns min_rounds · reductionᵏ below `max_rounds`: where trials are compared."""
    rungs = [int(min_rounds)]
    while rungs[-1] * reduction < max_rounds:
        rungs.append(rungs[-1] * int(reduction))
    return rungs
