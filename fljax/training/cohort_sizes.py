"""Says how many updates arrive in a round, for rules that promise nothing for too few."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import scipy

from fljax.core import parts
from fljax.core.sampler import Sampler
from fljax.core.schedule import Schedule
from fljax.data.dataset import FederatedDataset
from fljax.selection.names import MEANS
from fljax.systems.names import OFFERED, SCHEDULES
from fljax.training.options import RoundOptions

# Fewer updates than the least may arrive in this share of all runs, at most.
_RARE = 0.01
# Samplers of ours whose cohorts are smaller where deadlines or few members ask for it.
_SMALLER = ("fedcs", "grown")
_ASYNCHRONOUS = ("fedasync", "fedbuff")


class Sizes(NamedTuple):
    """The numbers of updates that arrive in the rounds of a run.

    Attributes:
      least: The fewest of a round, but in one of a hundred runs; 0 where nobody can tell.
      ordinary: Those of an ordinary round; where nobody can tell, all that are asked for.
    """

    least: int
    ordinary: int


def arriving(dataset: FederatedDataset, options: RoundOptions, works: np.ndarray) -> Sizes:
    """Returns how many updates arrive in the rounds of a run, with what is lost on the way.

    Args:
      dataset, options: Of the run.
      works: bool[N], which clients have something to train on; others send nothing.
    """
    if isinstance(options.schedule, Schedule):
        return Sizes(0, options.schedule.max_cohort)
    schedule, arguments = _schedule(options.schedule)
    needed = int(options.clients_per_round)
    if schedule in _ASYNCHRONOUS:
        # a server that steps once so many have arrived, whoever is lost
        size = needed if schedule == "fedbuff" else 1
        return Sizes(size, size)
    asked = options.clients_per_round
    if schedule == "over_selection":
        asked = math.ceil(arguments["factor"] * needed - 1e-9)
    # each of two draws has half of what is rare
    chance = _RARE / options.num_rounds / 2
    least, ordinary = _drawn(dataset, options, works, asked, chance)
    arrives = 1 - (options.dropout or 0) ** (arguments.get("retries", 0) + 1)
    if schedule == "stragglers" and arguments["late"] == "drop":
        least, ordinary = (round(size * (1 - arguments["share"])) for size in (least, ordinary))
    least, ordinary = int(scipy.stats.binom.ppf(chance, least, arrives)), ordinary * arrives
    if _is_left_to_time(schedule, arguments, options):
        least = 0
    if schedule == "over_selection":
        least, ordinary = min(least, needed), min(ordinary, needed)
    return Sizes(least, int(ordinary + 1e-9))


def _drawn(
    dataset: FederatedDataset, options: RoundOptions, works: np.ndarray, asked: float, chance: float
) -> tuple[int, float]:
    """Returns the fewest clients with work in a cohort but by a chance, and how many on average."""
    members = dataset.members
    working = int(works[:members].sum())
    if options.cohorts is not None:
        least = min(
            (int(works[np.asarray(each, int)].sum()) for each in options.cohorts), default=0
        )
        return least, least
    if isinstance(options.sampler, Sampler):
        return 0, options.sampler.max_cohort
    name = parts.name_of(options.sampler)
    if name in MEANS:
        rate = min(1.0, asked / members)
        return int(scipy.stats.binom.ppf(chance, working, rate)), working * rate
    size = min(int(asked), members)
    least = int(scipy.stats.hypergeom.ppf(chance, members, working, size))
    return 0 if ":" in name or name in _SMALLER else least, size * working / members


def _schedule(given: str | None) -> tuple[str, Mapping[str, Any]]:
    """Returns (name, {parameter: argument}) of a schedule; of one's own nothing is known."""
    given = given or "wait_for_all"
    if parts.name_of(given) not in SCHEDULES:
        return "", {}
    call = parts.read_one("schedule", given, SCHEDULES)
    return call.name, {**parts.defaults_of(call.function), **parts.written(call, OFFERED)}


def _is_left_to_time(schedule: str, arguments: Mapping[str, Any], options: RoundOptions) -> bool:
    """Returns whether devices decide how many arrive, by when they are there and how fast."""
    online = options.availability
    comes_and_goes = online is not None and not (
        isinstance(online, str) and parts.name_of(online) == "always"
    )
    loses = options.connectivity is not None or options.completeness is not None
    return comes_and_goes or loses or not schedule or arguments.get("seconds") is not None
