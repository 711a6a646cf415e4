"""Several processes, on one host or on many, that act as one.

Every process runs the same program over the same data: it plans the same rounds, dispatches the
same XLA computations over one mesh of all devices, and takes the same decisions. What could differ
from host to host (free memory, a missing file, Ctrl-C) is gathered first. Process 0 writes.

With a single process nothing is gathered, and every function returns at once.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import itertools
import json
import os
import socket
import sys
import time
import warnings
from typing import Any

import jax

# JAX has no public way to talk between processes before the devices are there, and their number is
# one of the things to talk about.
from jax._src.distributed import global_state

from fljax.core.cgroups import granted_cores

# A host may take so much longer to read its data than another one.
_PATIENCE_SECONDS = 1800
# Where all processes fail in the same way, each has that long to say so.
_GRACE_SECONDS = 5
_numbers = itertools.count()


def initialize_distributed(
    coordinator_address: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
) -> None:
    """Joins the processes of one run; to be called in each of them before JAX computes anything.

    Under Slurm, Kubernetes and Open MPI, and on Cloud TPUs, JAX finds the arguments by itself; see
    `jax.distributed.initialize`, which may as well be called directly where more than these three
    have to be said.

    Args:
      coordinator_address: "host:port" of process 0; a free port there, the same in all processes.
      num_processes: Number of processes.
      process_id: Number of this one, from 0.

    Raises:
      ValueError: If something is neither given nor found.
      RuntimeError: If JAX has started already, or the processes do not find each other.

    Example:
      >>> fljax.initialize_distributed('host0:1234', 2, 0)  # doctest: +SKIP
    """
    try:
        with warnings.catch_warnings():
            if None not in (coordinator_address, num_processes, process_id):
                # JAX advises a package that would find what is given here
                warnings.filterwarnings("ignore", "Kubernetes environment detected")
            jax.distributed.initialize(coordinator_address, num_processes, process_id)
    except ValueError as error:
        raise ValueError(
            f"The processes of this run cannot be found: {error} No launcher that JAX knows has "
            "started this process; give coordinator_address (host:port of process 0), "
            "num_processes and process_id."
        ) from error


def num_processes() -> int:
    """Returns the number of processes, without starting JAX's devices."""
    return global_state.num_processes if jax.distributed.is_initialized() else 1


def is_main() -> bool:
    """Returns whether this is process 0, the one that writes."""
    return global_state.process_id == 0


def allgather(value: Any) -> list[Any]:
    """Returns the values of all processes, in their order.

    Args:
      value: Of this process; anything that JSON can hold.

    Raises:
      ConnectionAbortedError: If another process failed in a block of `all_or_none`.
    """
    if num_processes() == 1:
        return [value]
    number = next(_numbers)
    _post(number, {"value": value})
    found = []
    for process in range(num_processes()):
        text = global_state.client.blocking_key_value_get(
            _name(number, process), _PATIENCE_SECONDS * 1000
        )
        answer = json.loads(text)
        if "error" in answer:
            raise ConnectionAbortedError(
                f"Process {process} of {num_processes()} failed: {answer['error']}"
            )
        found.append(answer["value"])
    return found


@contextlib.contextmanager
def all_or_none():
    """Lets a block succeed in all processes or in none: an error in one is raised in all."""
    try:
        yield
    except BaseException as error:
        if num_processes() > 1:
            _post(next(_numbers), {"error": f"{type(error).__name__}: {error}"})
        raise
    allgather(None)


@contextlib.contextmanager
def exit_on_failure():
    """Ends a process that fails in a block of joint computations, where it cannot tell the others.

    They wait for its part. It does not wait for them in turn, as JAX would for minutes; they, or
    the launcher, notice that it is gone.
    """
    try:
        yield
    except FloatingPointError:
        raise  # clients that diverge do so in the eyes of all processes
    except BaseException:
        if num_processes() > 1:
            atexit.register(_leave)
        raise


def _leave() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    if is_main():
        time.sleep(_GRACE_SECONDS)
    os._exit(1)


def check_same(value: Any, what: str) -> None:
    """Raises ValueError in every process where not all of them hold the same value.

    Args:
      value: Anything that JSON can hold.
      what: What it is, for the message; a plural.
    """
    found = allgather(value)
    strangers = [process for process, other in enumerate(found) if other != found[0]]
    if strangers:
        raise ValueError(
            f"The {what} of process {strangers[0]} are not those of process 0. All processes must "
            "run the same program on the same data, with the same seeds."
        )


@functools.cache
def cores() -> int:
    """Returns how many cores this process may use for itself.

    Processes that a launcher has not bound to cores of their own share those of their machine. A
    container may use fewer than it sees.
    """
    affinity = getattr(os, "sched_getaffinity", None)
    allowed = sorted(affinity(0)) if affinity else list(range(os.cpu_count() or 1))
    mine = [socket.gethostname(), allowed]
    shared = len(allowed) // allgather(mine).count(mine)
    return max(1, min(shared, granted_cores() or shared))


@functools.cache
def neighbours() -> int:
    """Returns the number of processes on this machine, this one included."""
    name = socket.gethostname()
    return allgather(name).count(name)


def _post(number: int, message: Any) -> None:
    global_state.client.key_value_set(_name(number, global_state.process_id), json.dumps(message))


def _name(number: int, process: int) -> str:
    return f"fljax/{number}/{process}"
