"""Seconds of single rounds."""

from __future__ import annotations

import time

import jax

from fljax.engine.plan import PlanFacts
from fljax.federation import Federation


def time_rounds(
    federation: Federation, rounds: int, begin: float
) -> tuple[list[float], list[PlanFacts]]:
    """Runs rounds and times each from the arrival of one server model to that of the next.

    What is not hidden behind the devices (planning, dispatch) counts as well.

    Args:
      federation: A federation before its first round.
      rounds: Number of rounds.
      begin: `time.perf_counter()` at which the first round is said to begin: before the federation
        was built, if that is to count.

    Returns:
      (seconds, facts), of each round.
    """
    seconds, seen = [], []
    for plan, facts in federation.plans(0, rounds):
        federation.step(plan, facts)
        jax.block_until_ready(federation.state)
        end = time.perf_counter()
        seconds.append(end - begin)
        seen.append(facts)
        begin = end
    return seconds, seen
