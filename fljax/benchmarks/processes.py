"""Runs commands that get so much time and no more, with everything that they start."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

_PROC = Path("/proc")


class Finished(NamedTuple):
    """The end of a command.

    Attributes:
      problem: What went wrong; None if it ended with status 0.
      output: What it wrote to standard output.
      errors: What it wrote to standard error.
    """

    problem: str | None
    output: str
    errors: str


def run(
    command: Sequence[str],
    timeout: float,
    *,
    directory: str | Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> Finished:
    """Runs a command; whatever it has started ends with it.

    Args:
      command: Program and arguments.
      timeout: Seconds after which it is ended.
      directory: Where it is run; None is here.
      environment: Variables besides those of this process.
    """
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        try:
            process = subprocess.Popen(
                command, cwd=directory, env=os.environ | dict(environment or {}),
                stdout=output, stderr=errors, start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            return Finished(str(error), "", "")
        try:
            status = process.wait(timeout)
            problem = f"ended with exit status {status}" if status else None
        except subprocess.TimeoutExpired:
            problem = f"took more than {timeout:.0f} s"
        finally:
            _end(process)
        output.seek(0), errors.seek(0)
        return Finished(problem, output.read(), errors.read())


def _end(process: subprocess.Popen) -> None:
    """Kills a process that leads a session, and all below it, and waits until they are gone."""
    known = {process.pid} if process.poll() is None else set()
    if not _PROC.is_dir():
        # no list of processes: its own group is all that can be found
        _kill(os.killpg, process.pid)
        process.wait()
    while known := _below(process.pid, known):
        for pid in known:
            _kill(os.kill, pid)
        process.wait()
        time.sleep(0.01)


def _kill(kill: Callable[[int, int], None], number: int) -> None:
    try:
        kill(number, signal.SIGKILL)
    except ProcessLookupError:
        pass  # it ended by itself


def _below(session: int, known: set[int]) -> set[int]:
    """Returns which processes live of a session, of those known, and of all that they started."""
    living: dict[int, set[int]] = {}
    for entry in _PROC.glob("[0-9]*"):
        try:
            # the name in parentheses may hold anything
            state, parent, _, own = (
                (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()[:4]
            )
        except OSError:
            continue  # it has ended
        if state not in "ZX":
            living[int(entry.name)] = {int(parent), int(own)}
    found = known | {pid for pid, above in living.items() if session in above}
    while more := {pid for pid, above in living.items() if above & found} - found:
        found |= more
    return found & living.keys()
