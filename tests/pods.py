"""Runs commands of `deploy/` as a platform does: starts them, stops them, starts them anew."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path

import quick

# what commands import on their way, imported once for all pods
_PRELOADED = (
    "fljax.commands.console",
    "fljax.commands.run",
    "fljax.config.experiment",
    "matplotlib.backends.backend_agg",
    "matplotlib.figure",
    "ml_collections.config_flags",
    "quick",
    "sklearn.datasets",
)
PATIENCE_SECONDS = 180.0


def start(arguments: list[str], log: Path) -> multiprocessing.process.BaseProcess:
    """Starts `fljax` with these arguments in a process that shares nothing with this one."""
    # forked off a process that has imported everything and started nothing
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(_PRELOADED))
    process = context.Process(
        target=_live, args=(arguments, str(log), dict(os.environ)), daemon=True
    )
    process.start()
    return process


def _live(arguments: list[str], log: str, environment: dict[str, str]) -> None:
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for descriptor in (1, 2):
        os.dup2(output, descriptor)
    os.environ.update(environment)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    sys.argv = ["fljax", *arguments]
    quick.collect_rarely()
    quick.lower_in_few_contexts()
    from fljax.commands import console

    try:
        console.main()
    finally:
        # multiprocessing leaves this out, by which JAX's processes wait for each other at their end
        atexit._run_exitfuncs()


def stop_on_its_way(process: multiprocessing.process.BaseProcess, workdir: Path) -> None:
    """Sends SIGTERM to a process once a run has finished a few rounds."""
    metrics, deadline = workdir / "metrics.jsonl", time.monotonic() + PATIENCE_SECONDS
    while not metrics.exists() or metrics.read_bytes().count(b"\n") < 4:
        assert process.is_alive() and time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGTERM)


def codes(*processes: multiprocessing.process.BaseProcess) -> list[int | None]:
    """Waits for the end of processes; returns their exit codes, None of those that go on."""
    for process in processes:
        process.join(PATIENCE_SECONDS)
    found = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
    return found
