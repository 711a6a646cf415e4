"""Kills runs at random moments, goes on with them, and compares them with runs left alone."""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fljax.benchmarks.same_files import differences
from fljax.config import default_config, experiment
from fljax.engine.devices.compilation import use_compilation_cache
from fljax.engine.devices.execution import use_all_cores
from fljax.recording import say
from fljax.recording.recorder import holds_run
from fljax.studies import sweep, write_report

# How long a killed process may take to be waited for, and a whole one to end.
_PATIENCE_SECONDS = 600.0
_MOMENT = 0.002


class Case(NamedTuple):
    """A run that is killed.

    Attributes:
      title: For people.
      run: (workdir): runs it, or goes on with it.
    """

    title: str
    run: Callable[[Path], Any]


class Outcome(NamedTuple):
    """The outcome of a case's runs.

    Attributes:
      kills: Processes that were killed.
      saving: Of those, how many while a checkpoint or another file was being written.
      runs: Runs that came to their end over those kills.
      seconds: Of a run without kills.
      problems: What was lost or differs, and processes that failed; empty where all is well.
    """

    kills: int
    saving: int
    runs: int
    seconds: float
    problems: tuple[str, ...]


def _config(**values: Any) -> Any:
    config = default_config()
    common = {
        "dataset": "digits", "num_clients": 12, "partition": "dirichlet", "val_fraction": 0.1,
        "clients_per_round": 4, "num_rounds": 24, "eval_every": 4, "checkpoint_every": 3,
        "batch_size": 16, "eval_clients": -1, "lanes": 1, "devices": 2,
    }  # fmt: skip
    for name, value in (common | values).items():
        config[name] = value
    return config


def _simulation(**values: Any) -> Callable[[Path], Any]:
    return lambda workdir: experiment.run_config(
        _config(**values), workdir, resume=holds_run(workdir)
    )


def _sweep(workdir: Path) -> None:
    found = sweep(
        _config(num_rounds=12),
        workdir,
        resume=workdir.exists(),
        axes={"client_lr": (0.02, 0.05, 0.1), "server_lr": (0.5, 1.0)},
        parallel_trials=2,
    )
    found.plot()


def _study(workdir: Path) -> None:
    variants = {
        "none": {},
        "sparse": {"uplink": "top_k(0.05)", "uplink_memory": "error_feedback"},
        # trains side by side with the first, so that groups are not in the order of trials
        "slow": {"client_lr": 0.02},
    }
    config = _config(num_rounds=12)
    write_report(sweep(config, workdir, resume=True, variants=variants, reference="none"))


CASES = {
    "fedavg": Case("FedAvg with baselines", _simulation(baselines=("centralized", "local_only"))),
    "scaffold": Case("SCAFFOLD", _simulation(algorithm="scaffold")),
    "feedback": Case(
        "top-k with error feedback",
        _simulation(uplink="top_k(0.05)", uplink_memory="error_feedback"),
    ),
    "private": Case(
        "SCAFFOLD with adaptive clipping and noise",
        _simulation(
            algorithm="scaffold",
            sampler="poisson",
            num_clients=24,
            delta=1e-3,
            privacy="adaptive_clipping(bit_noise=30)",
        ),
    ),
    "sweep": Case("a sweep of 6 trials, 2 side by side", _sweep),
    "study": Case("a study of 3 variants", _study),
}


def attempt(name: str, workdir: str) -> None:
    """Runs a case, or goes on with it; what it prints goes nowhere."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 1)
    errors = os.open(f"{workdir}.errors", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(errors, 2)
    use_all_cores()
    use_compilation_cache()
    CASES[name].run(Path(workdir))


def endure(name: str, kills: int, directory: Path, seed: int = 0) -> Outcome:
    """Kills the runs of a case so many times, and goes on until every one of them is over.

    A process is killed at a random moment of the time that a whole run takes, its start included;
    every second one waits from there on for a file that is just being written. What is killed goes
    on in the same directory, by the call that a user would repeat.

    Args:
      name: Of the case, from `CASES`.
      kills: How many.
      directory: Receives the runs; those without a problem are removed again.
      seed: Of the moments.
    """
    draw = random.Random(f"{name}/{seed}")
    whole = directory / name / "whole"
    _run(name, whole)  # compiles its programs
    shutil.rmtree(whole)
    begin = time.monotonic()
    _run(name, whole)
    seconds = time.monotonic() - begin

    done = saving = runs = 0
    problems: list[str] = []
    while done < kills:
        workdir = directory / name / f"killed{runs}"
        own = 0
        while True:
            process = _start(name, workdir)
            killed = None
            if done < kills:
                killed = _kill(process, workdir, draw.uniform(0.0, 1.1) * seconds, done % 2 == 1)
            process.join(_PATIENCE_SECONDS)
            if killed is None:
                break
            done, own, saving = done + 1, own + 1, saving + killed
        if process.exitcode:
            problems.append(f"{workdir}: after {own} kills the process failed: {_errors(workdir)}")
            done += 1  # or it would fail for ever
        else:
            found = differences(whole, workdir)
            problems += [f"{workdir}: after {own} kills {problem}" for problem in found]
            if not found:
                shutil.rmtree(workdir)
        runs += 1
        say(f"{name}: {done} of {kills} kills, {len(problems)} problems")
    return Outcome(done, saving, runs, seconds, tuple(problems))


def _start(name: str, workdir: Path) -> multiprocessing.process.BaseProcess:
    workdir.parent.mkdir(parents=True, exist_ok=True)
    # forked off a process that has imported everything and started nothing
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    process = context.Process(target=attempt, args=(name, str(workdir)))
    process.start()
    return process


def _run(name: str, workdir: Path) -> None:
    process = _start(name, workdir)
    process.join(_PATIENCE_SECONDS)
    if process.exitcode != 0:
        raise ValueError(f"{name} does not run even without kills: {_errors(workdir)}")


def _kill(process: Any, workdir: Path, delay: float, at_writing: bool) -> bool | None:
    """Kills a process; returns whether it was writing, or None if it ended before."""
    process.join(delay)
    while at_writing and process.is_alive() and not _writes(workdir):
        time.sleep(_MOMENT)
    if not process.is_alive():
        return None
    writing = _writes(workdir)
    process.kill()
    return writing


def _writes(workdir: Path) -> bool:
    """Returns whether a file to be renamed is there: a process is writing, or was killed so."""
    newest = time.time() - 1.0
    try:
        return any(
            path.stat().st_mtime > newest
            for pattern in ("*.orbax-checkpoint-tmp", ".*.tmp")
            for path in workdir.rglob(pattern)
        )
    except OSError:
        return True  # renamed just now


def _errors(workdir: Path) -> str:
    path = Path(f"{workdir}.errors")
    lines = path.read_text(errors="replace").strip().splitlines() if path.exists() else []
    return lines[-1] if lines else "it said nothing"


def table(outcomes: Sequence[tuple[str, Outcome]]) -> str:
    """Returns the outcomes as Markdown."""
    lines = [
        "| what was run | seconds of a whole run | kills | while writing | runs ended | lost or "
        "different |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, outcome in outcomes:
        lines.append(
            f"| {CASES[name].title} | {outcome.seconds:.1f} | {outcome.kills} "
            f"| {outcome.saving} | {outcome.runs} "
            f"| {len(outcome.problems) or 'nothing'} |"
        )
    return "\n".join(lines)
