"""Cohorts: whom each trial's sampler chooses for a round, as one table of jobs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fljax.core.sampler import Sampler
from fljax.engine.plan.round_plan import JobTable, job_table


class Cohorts(NamedTuple):
    """Draws the jobs of a round.

    Attributes:
      samplers: One a trial.
      num_clients: Size of the population.
      groups: int32[N] group of every client, or None.
      steps_per_round: Local steps of each round, the same for all clients, instead of local work.
    """

    samplers: tuple[Sampler, ...]
    num_clients: int
    groups: np.ndarray | None = None
    steps_per_round: Sequence[int] | None = None

    @property
    def max_jobs(self) -> int:
        """The most jobs that a round can have."""
        return sum(sampler.max_cohort for sampler in self.samplers)

    def init(self) -> tuple[Any, ...]:
        """Returns the samplers' first states."""
        return tuple(sampler.init() for sampler in self.samplers)

    @property
    def feedback(self) -> str:
        """The feedback that the samplers ask for: "none", "delayed" or "immediate"."""
        return self.samplers[0].feedback

    def observe(self, states: tuple, round: int, statistics: Mapping[str, np.ndarray]) -> tuple:
        """Tells the sampler of the only trial what a round has shown; returns states'."""
        (sampler,), (state,) = self.samplers, states
        return (sampler.observe(state, round, statistics),)

    def draw(self, round: int | np.ndarray, states: tuple) -> tuple[JobTable, tuple]:
        """Draws the cohorts of a round, trial after trial.

        Args:
          round: Round number, or int[S], one a trial; a trial below 0 rests.
          states: The samplers' states.

        Returns:
          (jobs, states').

        Raises:
          ValueError: If a sampler names a client that does not exist.
        """
        rounds = np.broadcast_to(round, len(self.samplers)).tolist()
        new_states = list(states)
        chosen: list[np.ndarray] = []
        for trial, (sampler, at) in enumerate(zip(self.samplers, rounds, strict=True)):
            clients = np.zeros(0, np.int32)
            if at >= 0:
                clients, new_states[trial] = sampler.select(states[trial], at)
            chosen.append(clients)
        lengths = [len(clients) for clients in chosen]
        clients = np.concatenate(chosen)
        wrong = np.flatnonzero((clients < 0) | (clients >= self.num_clients))
        trials = np.repeat(np.arange(len(chosen)), lengths)
        if len(wrong):
            raise ValueError(
                f"The sampler chose client {clients[wrong[0]]} in round "
                f"{rounds[trials[wrong[0]]]}; the population has clients 0 to "
                f"{self.num_clients - 1}."
            )
        steps = None
        if self.steps_per_round is not None:
            planned = [self.steps_per_round[max(at, 0)] for at in rounds]
            steps = np.repeat(planned, lengths)
        jobs = job_table(clients, trial=trials, groups=self.groups, steps=steps)
        return jobs, tuple(new_states)
