"""Feedback: statistics of rounds that have run, handed to the thread that plans later ones."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import numpy as np

from fljax.core.sampler import DELAYS
from fljax.engine.plan.round_plan import HostPlan

Statistics = dict[str, np.ndarray]


class Feedback:
    """Hands the statistics of each round to the planner, a fixed number of rounds later.

    What a sampler knows when it selects depends on the round alone, never on how fast the devices
    are: for round r, the rounds up to r - 1 - delay.

    Args:
      delay: Rounds that are under way, whose statistics are not waited for; 0 waits for all.
      pending: {round: statistics} that a resumed run has not handed over yet.

    Attributes:
      pending: {round: statistics} that a checkpoint has to keep: of the last delay + 1 rounds.
    """

    def __init__(self, delay: int, pending: Mapping[int, Statistics] | None = None):
        self.delay = delay
        self.pending = dict(pending or {})
        self._arrived = threading.Condition()
        self._closed = False

    def give(self, round: int, statistics: Statistics) -> None:
        """Takes in the statistics of a round that has run."""
        with self._arrived:
            kept = {at: found for at, found in self.pending.items() if at >= round - self.delay}
            self.pending = kept | {round: statistics}
            self._arrived.notify_all()

    def take(self, round: int) -> Statistics:
        """Returns the statistics of a round, and waits for them where they are not there yet."""
        with self._arrived:
            self._arrived.wait_for(lambda: round in self.pending or self._closed)
            if round not in self.pending:
                raise RuntimeError(f"The statistics of round {round} never arrived.")
            return self.pending[round]

    def close(self) -> None:
        """Wakes a planner that waits for what will not arrive any more."""
        with self._arrived:
            self._closed = True
            self._arrived.notify_all()


def make_feedback(kind: str, pending: Mapping[int, Statistics] | None = None) -> Feedback | None:
    """Returns the feedback that a sampler asks for: see `fljax.core.sampler`; None for "none"."""
    return None if kind == "none" else Feedback(DELAYS[kind], pending)


def statistics_of(facts: HostPlan, stats: tuple[Mapping[str, Any], ...]) -> Statistics:
    """Returns what a sampler is told of a round: one entry a job, in cohort order.

    Args:
      facts: What the host knows of the plan.
      stats: Per-job statistics [D, J] of each pass.

    Returns:
      {"client": int32[n], and each statistic of the last pass: [n]}.
    """
    columns = {"client": facts.clients, **stats[-1]}
    return {name: np.asarray(column).reshape(-1)[facts.places] for name, column in columns.items()}
