"""Runs parts of a round, to see their time or their memory, and keeps nothing of them."""

from __future__ import annotations

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fljax.engine.devices.distributed import allgather
from fljax.engine.devices.execution import memory_of, taken_bytes
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
    arguments = _arguments(federation, plan, facts)
    begin = time.perf_counter()
    jax.block_until_ready(federation.program(*arguments))
    return max(allgather(time.perf_counter() - begin))


def apart(federation: Any, other: Any, plan: RoundPlan, facts: Any) -> float:
    """Returns how far a plan ends from where another federation's program brings it.

    Of each array of the server's state, the distance as a share of what the plan changes; the
    largest of these. Both federations begin alike, on layouts that have the same plans.
    """
    ends = [each.program(*_arguments(each, plan, facts))[0].server for each in (federation, other)]
    return float(_apart(federation.state.server, *ends))


@jax.jit
def _apart(before: Any, end: Any, other: Any) -> jax.Array:
    norm = lambda leaf: jnp.linalg.norm(leaf.ravel())  # noqa: E731
    minus = lambda a, b: [  # noqa: E731
        norm(x - y)
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
        if jnp.issubdtype(x.dtype, jnp.floating)
    ]
    changes, distances = jnp.stack(minus(end, before)), jnp.stack(minus(end, other))
    # of an array that hardly changes, no share is told from rounding
    shares = distances / (changes + 1e-3 * norm(changes))
    return jnp.where(distances == 0, 0, shares).max()


def _arguments(federation: Any, plan: RoundPlan, facts: Any) -> tuple:
    """Returns what a program takes to run a plan, ready on the devices; the state is a copy."""
    placed = federation.place(pack(plan))
    rows = federation.store.gather(facts.trials, facts.clients)
    state = copied(federation.state)
    return *jax.block_until_ready((state, rows, placed)), federation.inputs


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
    check_fits(federation.execution, needed, room_of(federation))
    return needed or 0


def room_of(federation: Any) -> int:
    """Returns what a round program may take of a device, what it is given included.

    That is all but what others have taken: arrays of the user's own, another federation. Of several
    processes, the one with the least counts.
    """
    device = federation.mesh.local_devices[0]
    given = jax.tree.leaves((federation.state, federation.inputs))
    own = sum(
        shard.data.nbytes
        for leaf in given
        for shard in leaf.addressable_shards
        if shard.device == device
    )
    return memory_of(federation.mesh) - max(allgather(max(0, taken_bytes(device) - own)))


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
