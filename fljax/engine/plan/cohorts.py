"""Cohorts: the jobs that each trial's schedule has for a round, as one table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fljax.core.schedule import Arrivals, Schedule, Spans
from fljax.engine.plan.round_plan import JobTable, job_table

_NO_STEPS = np.zeros(0, np.int64)


class Drawn(NamedTuple):
    """The jobs of one round.

    Attributes:
      jobs: Of all trials.
      newest: int[S] places of the newest versions; None where versions lie in turn.
      states: The schedules' states behind them.
      records: {key: number} that joins each trial's record.
      spans: Of each trial who worked when, or None.
      downlink_bytes: What clients of each trial have received for other jobs.
    """

    jobs: JobTable
    newest: np.ndarray | None
    states: tuple
    records: tuple[Mapping[str, float], ...]
    spans: tuple[Spans | None, ...]
    downlink_bytes: tuple[float, ...]


class Cohorts(NamedTuple):
    """Draws the jobs of a round.

    Attributes:
      schedules: One a trial.
      num_clients: Size of the population.
      groups: int32[N] group of every client, or None.
      steps_per_round: Local steps of each round, the same for all clients, instead of local work.
    """

    schedules: tuple[Schedule, ...]
    num_clients: int
    groups: np.ndarray | None = None
    steps_per_round: Sequence[int] | None = None

    @property
    def max_jobs(self) -> int:
        """The most jobs that a round can have."""
        return sum(schedule.max_cohort for schedule in self.schedules)

    @property
    def num_versions(self) -> int:
        """Versions of a trial's model that are kept at a time, the newest one included."""
        return max(schedule.num_versions for schedule in self.schedules)

    @property
    def has_steps(self) -> bool:
        """Says whether jobs bring their own numbers of local steps, none above the configured."""
        return self.schedules[0].has_steps

    @property
    def has_scale(self) -> bool:
        """Says whether jobs bring factors of what the server takes in of their updates."""
        return self.schedules[0].has_scale

    @property
    def rebased(self) -> bool:
        """Says whether the server counts updates from the newest model."""
        return self.schedules[0].rebased

    def init(self) -> tuple[Any, ...]:
        """Returns the schedules' first states."""
        return tuple(schedule.init() for schedule in self.schedules)

    @property
    def feedback(self) -> str:
        """The feedback that the samplers ask for: "none", "delayed" or "immediate"."""
        return self.schedules[0].feedback

    def observe(self, states: tuple, round: int, statistics: Mapping[str, np.ndarray]) -> tuple:
        """Tells the sampler of the only trial what a round has shown; returns states'."""
        (schedule,), (state,) = self.schedules, states
        return (schedule.observe(state, round, statistics),)

    def draw(self, round: int | np.ndarray, states: tuple) -> Drawn:
        """Draws the cohorts of a round, trial after trial.

        Args:
          round: Round number, or int[S], one a trial; a trial below 0 rests.
          states: The schedules' states.

        Raises:
          ValueError: If a sampler names a client that does not exist.
        """
        rounds = np.broadcast_to(round, len(self.schedules)).tolist()
        new_states = list(states)
        nothing = np.zeros(0, np.float32) if self.has_scale else None
        found = [Arrivals(np.zeros(0, np.int32), steps=_NO_STEPS, scale=nothing)] * len(rounds)
        for trial, (schedule, at) in enumerate(zip(self.schedules, rounds, strict=True)):
            if at >= 0:
                found[trial], new_states[trial] = schedule.draw(states[trial], at)
        lengths = [len(each.clients) for each in found]
        clients = np.concatenate([each.clients for each in found])
        wrong = np.flatnonzero((clients < 0) | (clients >= self.num_clients))
        trials = np.repeat(np.arange(len(found)), lengths)
        if len(wrong):
            raise ValueError(
                f"The sampler chose client {clients[wrong[0]]} in round "
                f"{rounds[trials[wrong[0]]]}; the population has clients 0 to "
                f"{self.num_clients - 1}."
            )
        steps = None
        if self.has_steps:
            steps = _joined(found, "steps", np.int64)
        if self.steps_per_round is not None:
            planned = [self.steps_per_round[max(at, 0)] for at in rounds]
            steps = np.repeat(planned, lengths)
        # trials are of one schedule, and those that rest have no jobs
        has_places = any(each.place is not None for each in found)
        jobs = job_table(
            clients,
            trial=trials,
            version=_joined(found, "version", np.int32),
            accepted=_joined(found, "accepted", bool),
            groups=self.groups,
            steps=steps,
            scale=None if nothing is None else _joined(found, "scale", np.float32),
            place=_joined(found, "place", np.int32) if has_places else None,
        )
        records, spans, further = zip(
            *((each.record, each.spans, each.downlink_bytes) for each in found), strict=True
        )
        newest = np.array([each.newest for each in found]) if has_places else None
        return Drawn(jobs, newest, tuple(new_states), records, spans, further)


def _joined(found: Sequence[Arrivals], name: str, dtype: Any) -> np.ndarray:
    """Returns one column of the arrivals of all trials."""
    columns = (
        np.broadcast_to(np.asarray(getattr(each, name), dtype), len(each.clients))
        for each in found
        if len(each.clients)
    )
    return np.concatenate([np.zeros(0, dtype), *columns])
