"""The costs of a study: what its trials took of time, rounds and rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from fljax.studies.space import Trial


@dataclasses.dataclass
class Costs:
    """The costs of a process, in all sessions that its study took.

    Attributes:
      seconds: From the first trial to the last.
      groups: Groups that were built.
      slots: The most trials that trained side by side.
      building: Seconds of building, of finding a layout, and of what that compiled.
      compiling: Seconds of dispatches that compiled.
      training: Seconds of all other rounds.
      evaluating: Seconds of evaluations, what they compiled included.
      rounds: Rounds of all trials together.
      rows_real: Rows that were trained on.
      rows_computed: Rows that were computed, padding and idle lanes included.
      execution: The execution plan of each group.
      trial_seconds: {number of the trial: seconds of its rounds and evaluations}; trials that train
        side by side share theirs.
      round_seconds: The same of rounds alone, in which nothing was compiled.
    """

    seconds: float = 0.0
    groups: int = 0
    slots: int = 0
    building: float = 0.0
    compiling: float = 0.0
    training: float = 0.0
    evaluating: float = 0.0
    rounds: int = 0
    rows_real: int = 0
    rows_computed: int = 0
    execution: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    trial_seconds: dict[str, float] = dataclasses.field(default_factory=dict)
    round_seconds: dict[str, float] = dataclasses.field(default_factory=dict)

    @property
    def utilization(self) -> float | None:
        """Rows trained on ÷ rows computed; None where nothing was."""
        return self.rows_real / self.rows_computed if self.rows_computed else None

    def spent(self, trials: Sequence[Trial], seconds: float, *, training: bool = False) -> None:
        """Takes note of time that some trials, side by side, took; of rounds when `training`."""
        for taken in (self.trial_seconds, self.round_seconds)[: 1 + training]:
            for trial in trials:
                number = str(trial.number)
                taken[number] = taken.get(number, 0.0) + seconds / len(trials)

    def go_on(self, saved: Mapping[str, Any]) -> None:
        """Takes over what the sessions before have spent."""
        for name, value in saved.items():
            setattr(self, name, value)
