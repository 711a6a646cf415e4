"""Runs parts of a round, to see their time or their memory, and keeps nothing of them."""

from __future__ import annotations

import time
from typing import Any

import jax
import numpy as np

from fljax.engine.devices.distributed import allgather
from fljax.engine.devices.execution import memory_of
from fljax.engine.devices.memory import (
    check_fits,
    exhaustion,
    exhaustion_anywhere,
    has_own_memory,
    program_bytes,
)
from fljax.engine.devices.placement import copied
from fljax.engine.plan.packed_plan import pack
from fljax.engine.plan.round_plan import RoundPlan


def seconds_of(federation: Any, plan: RoundPlan, facts: Any) -> float:
    """Runs a plan, keeps nothing of it, and returns what it took where it took longest."""
    placed = federation.place(pack(plan))
    rows = federation.store.gather(facts.trials, facts.clients)
    state = jax.block_until_ready(copied(federation.state))
    jax.block_until_ready((placed, rows))
    begin = time.perf_counter()
    jax.block_until_ready(federation.program(state, rows, placed, federation.inputs))
    return max(allgather(time.perf_counter() - begin))


def first_waves(plan: RoundPlan, waves: int) -> RoundPlan:
    passes = tuple(
        each._replace(num_waves=np.minimum(each.num_waves, waves)) for each in plan.passes
    )
    return plan._replace(passes=passes)


def overhead_of(federation: Any, plan: RoundPlan, facts: Any) -> float:
    """Returns the seconds of a round without any wave; 0 where its only wave runs in any case."""
    if any(each.shares_exchanges and each.wave_jobs.shape[1] == 1 for each in plan.passes):
        return 0.0
    return seconds_of(federation, first_waves(plan, 0), facts)


def end_of(plan: RoundPlan) -> int:
    """Returns the steps of all passes until their last waves end, on the device with the most."""
    devices = range(len(plan.passes[0].num_waves))
    times = [[each.exchange_times(device) for each in plan.passes] for device in devices]
    return max(sum(int(one[-1]) for one in passes if len(one)) for passes in times)


def needed_bytes(federation: Any, plan: RoundPlan, facts: Any) -> int | None:
    """Compiles the round program; returns what it takes of a device, None if XLA does not say.

    Raises:
      DoesNotFit: If the compiler runs out of the device's memory.
    """
    with exhaustion_anywhere(federation.execution):
        return program_bytes(federation.compile_block(federation.place(pack(plan)), [facts])())


def fitting_bytes(federation: Any, plan: RoundPlan, facts: Any) -> int:
    """Returns what the round program takes of a device with memory of its own; else 0.

    On CPUs nothing is done: what does not fit there was refused by rule.

    Raises:
      DoesNotFit: If a device has less memory.
    """
    if not has_own_memory(federation.mesh):
        return 0
    needed = needed_bytes(federation, plan, facts)
    check_fits(federation.execution, needed, memory_of(federation.mesh))
    return needed or 0


def proven(federation: Any) -> Any:
    """Returns a federation whose round has its memory: compiled, and run without a job.

    On CPUs nothing is done.

    Raises:
      DoesNotFit: If a device has less memory.
    """
    if has_own_memory(federation.mesh):
        plan, facts = federation.plan_round(0, federation.cohorts.init())
        fitting_bytes(federation, plan, facts)
        with exhaustion(federation.execution):
            seconds_of(federation, first_waves(plan, 0), facts)
    return federation
