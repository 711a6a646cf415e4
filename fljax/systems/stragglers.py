"""Stragglers by decree: a share of each cohort does less than it was asked for."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fljax.core import random
from fljax.core.sampler import Sampler
from fljax.core.schedule import Schedule, Spans
from fljax.core.values import COUNT, Field, Interval, checked
from fljax.systems.fleet import Fleet
from fljax.systems.synchronous import ARRIVED, LATE, LOST, NOBODY, PARTIAL, Jobs, in_rounds

_SHARE = Field(None, float, Interval(0, 1))


def stragglers(
    fleet: Fleet,
    sampler_of: Callable[[float], Sampler],
    clients_per_round: int,
    share: float = 0.9,
    late: str = "drop",
    epochs: int = 20,
) -> Schedule:
    """Makes stragglers of a share of each cohort, whatever their devices.

    The setting of FedProx (Li et al. 2018, arXiv:1812.06127, section 5.2): of a cohort, so many
    clients that the share is met are drawn anew in each round. Of E = `epochs` local epochs each
    has done between 1 and E - 1 when the round ends, all with the same chance; FedAvg drops such
    clients, FedProx takes what they have done. A round lasts as long as the slowest of the others.
    Who is offline, or lost on the way, is so as in the other synchronous schedules; stragglers are
    drawn among those who begin.

    Args:
      fleet: The clients.
      sampler_of: (clients per round) -> Sampler.
      clients_per_round: Clients that are asked.
      share: Of the cohort, rounded to whole clients.
      late: "drop" or "partial".
      epochs: E, the local epochs of a job.

    Raises:
      ValueError: If the share is none, or there is one epoch only, which nobody does in part.
    """
    share = checked("share", share, _SHARE)
    late = checked("late", late, Field(None, str, ("drop", "partial")))
    epochs = checked("epochs", epochs, Field(None, int, COUNT))
    if epochs == 1:
        raise ValueError("epochs = 1: nobody does a part of one epoch. Give two or more.")
    sampler = sampler_of(clients_per_round)

    def turned_out(clients: np.ndarray, begin: float, round: int) -> tuple[Jobs, Spans, float]:
        straggles = _drawn(fleet.seed, clients, round, share)
        steps = np.where(straggles, _done(fleet, clients, round, epochs), fleet.steps[clients])
        end, lost = fleet.ends(clients, begin, round, steps)
        closes = float((end if straggles.all() else end[~straggles]).max(initial=begin))
        # a loss behind the end of the round is never heard of
        lost &= end <= closes
        fate = np.where(straggles, PARTIAL if late == "partial" else LATE, ARRIVED)
        fate = np.where(lost, LOST, fate).astype(np.int8)
        end = np.where(straggles & ~lost, closes, end)
        jobs = Jobs(clients, np.full(len(clients), begin), end, fate, steps)
        return jobs, NOBODY, closes

    return in_rounds(fleet, sampler, turned_out, has_steps=True)


def _drawn(seed: int, clients: np.ndarray, round: int, share: float) -> np.ndarray:
    """Returns bool[n], which clients of a cohort straggle."""
    words = random.uniform(seed, "systems/stragglers", round, clients, np.arange(len(clients)))
    order = np.argsort(words, kind="stable")
    straggles = np.zeros(len(clients), bool)
    straggles[order[: len(clients) - _rounded(len(clients) * (1 - share))]] = True
    return straggles


def _done(fleet: Fleet, clients: np.ndarray, round: int, epochs: int) -> np.ndarray:
    """Returns int64[n] steps that each client has done if it straggles; at least one, if any."""
    words = random.uniform(fleet.seed, "systems/stragglers/epochs", round, clients)
    done = 1 + np.floor(words * (epochs - 1)).astype(np.int64)
    steps = fleet.steps[clients]
    return np.maximum(steps * done // epochs, np.minimum(steps, 1))


def _rounded(value: float) -> int:
    """Returns the nearest whole number; of two, the larger one."""
    return int(np.floor(value + 0.5 + 1e-9))
