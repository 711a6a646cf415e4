"""Tells whether a program fits into the memory of a device, from what XLA says of it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import jax

from fljax.engine.devices.distributed import allgather
from fljax.engine.devices.execution import ExecutionPlan

# How XLA's errors begin where a device had too little memory, at compilation or at run time.
_EXHAUSTED = "RESOURCE_EXHAUSTED"
_REMEDY = "Lower lanes, wave, batch_size or clients_per_round."


class DoesNotFit(ValueError):
    """A layout of jobs that does not fit into the memory of a device.

    Attributes:
      execution: The layout.
      reason: What was said of it, a sentence.
    """

    def __init__(self, execution: ExecutionPlan, reason: str, remedy: str = _REMEDY):
        super().__init__(
            f"lanes = {execution.lanes} with waves of {execution.wave} do not fit into the memory "
            f"of a device: {reason} {remedy}"
        )
        self.execution, self.reason = execution, reason


def program_bytes(compiled: jax.stages.Compiled) -> int | None:
    """Returns what a compiled program takes on a device, arguments included; None if XLA is silent.

    Example:
      >>> doubled = jax.jit(lambda x: 2 * x).lower(jnp.ones(1000)).compile()
      >>> program_bytes(doubled)
      8000
    """
    found = compiled.memory_analysis()
    if found is None:
        return None
    # results that take the place of donated arguments count once
    results = found.output_size_in_bytes - found.alias_size_in_bytes
    return found.argument_size_in_bytes + results + found.temp_size_in_bytes


def check_fits(execution: ExecutionPlan, needed: int | None, memory: int) -> None:
    """Raises DoesNotFit for a program that needs more bytes than a device has."""
    if needed is not None and needed > memory:
        raise DoesNotFit(
            execution,
            f"the round program needs {needed / 1e9:.2f} GB, as XLA says, and the device has "
            f"{memory / 1e9:.2f} GB for it.",
        )


def has_own_memory(mesh: jax.sharding.Mesh) -> bool:
    """Returns whether the devices of a mesh have memory of their own, as all but CPUs do."""
    return mesh.local_devices[0].platform != "cpu"


@contextlib.contextmanager
def exhaustion(execution: ExecutionPlan) -> Iterator[None]:
    """Makes of XLA's error of a device without memory one that says what to do: DoesNotFit."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if not str(error).startswith(_EXHAUSTED):
            raise
        raise DoesNotFit(execution, f"{str(error).splitlines()[0]}.") from error


@contextlib.contextmanager
def exhaustion_anywhere(execution: ExecutionPlan) -> Iterator[None]:
    """Does as `exhaustion`, in all processes where it happens in one of them.

    To be used where each process does its part without waiting for another one: it compiles, or
    places arrays on its devices.
    """
    failed = None
    try:
        with exhaustion(execution):
            yield
    except DoesNotFit as error:
        failed = error
    reasons = [reason for reason in allgather(failed and failed.reason) if reason]
    if reasons:
        raise DoesNotFit(execution, reasons[0]) from failed
