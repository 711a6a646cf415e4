"""How long CPU devices of one process wait for each other before XLA ends the process."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import jaxlib

# XLA's own limits are 20 seconds to a warning and 40 to the end: a long job beside none, or an
# evaluation that took both cores, would end a run that is well.
_SECONDS = {
    "xla_cpu_collective_call_warn_stuck_timeout_seconds": 3600,
    "xla_cpu_collective_call_terminate_timeout_seconds": 86400,
}


def wait_for_slow_devices() -> None:
    """Lets CPU devices wait for each other for a day, which XLA_FLAGS can change.

    This must happen before JAX starts. XLA ends a process over flags that it does not know, so only
    those are set whose names its library holds.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    wanted = [name for name in _SECONDS if name not in flags]
    known = _names_in_library(wanted)
    added = [f"--{name}={_SECONDS[name]}" for name in wanted if name in known]
    if added:
        os.environ["XLA_FLAGS"] = " ".join([flags, *added]).strip()


def _names_in_library(names: list[str]) -> set[str]:
    """Returns those names that stand in the files of jaxlib."""
    found: set[str] = set()
    for path in Path(jaxlib.__file__).parent.glob("*.so"):
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
            found |= {name for name in names if text.find(name.encode()) >= 0}
    return found
