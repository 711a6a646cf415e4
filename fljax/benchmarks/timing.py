"""Times single rounds."""

from __future__ import annotations

import time
from collections.abc import Sequence

import jax

from fljax.engine.devices.placement import copied
from fljax.engine.plan.packed_plan import PackedPlan
from fljax.engine.plan.round_plan import HostPlan
from fljax.training.federation import Federation


def time_rounds(
    federation: Federation, rounds: int, begin: float
) -> tuple[list[float], list[HostPlan]]:
    """Runs rounds and times each from the arrival of one server model to that of the next.

    What is not hidden behind the devices (planning, dispatch) counts as well. The first round is
    dispatched by itself, and its time includes all compiling; of the others, those that share a
    dispatch take equal parts of its time.

    Args:
      federation: A federation before its first round.
      rounds: Number of rounds.
      begin: `time.perf_counter()` at which the first round is said to begin: before the federation
        was built, if that is to count.

    Returns:
      (seconds, facts), of each round.

    Raises:
      ValueError: If the rounds after the first one do not fill whole dispatches.
    """
    together = federation.rounds_per_dispatch
    if not federation.options.rounds_per_dispatch:
        # chosen: the most that fill whole dispatches
        together = max(n for n in range(1, together + 1) if (rounds - 1) % n == 0)
        federation.rounds_per_dispatch = together
    if (rounds - 1) % together:
        raise ValueError(
            f"{rounds - 1} timed rounds are no multiple of rounds_per_dispatch = {together}."
        )
    seconds: list[float] = []
    seen: list[HostPlan] = []
    for plan, facts in federation.blocks(range(rounds), ends=lambda round: round == 0):
        if len(seen) == 1 and together > 1:
            _rehearse(federation, plan, facts)
            seconds[0] += time.perf_counter() - begin
            begin = time.perf_counter()
        federation.step_block(plan, facts)
        jax.block_until_ready(federation.state)
        end = time.perf_counter()
        seconds += [(end - begin) / len(facts)] * len(facts)
        seen += facts
        begin = end
    return seconds, seen


def _rehearse(federation: Federation, plan: PackedPlan, facts: Sequence[HostPlan]) -> None:
    """Compiles the program of a block, by running it on a copy of the state."""
    state = federation.state
    federation.state = copied(state)
    jax.block_until_ready(federation.step_block(plan, facts))
    federation.state = state
