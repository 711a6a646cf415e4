"""The same work for several simulators: runs their runners in turn, and sets the results beside.

A *runner* is any command that takes `--data=FILE.npz --workload=NAME --rounds=N`, runs one first
round and N timed ones of the workload file (`fljax.benchmarks.workload_file`), and prints one line
of JSON with

    median_s_per_round, min, max, times   seconds of the timed rounds
    first_round_s                         seconds of the first one, with all that it has to set up
    examples_per_s                        examples trained on a second
    peak_rss_mb                           largest resident memory, all processes together
    final_train_loss                      mean loss on eval_x, eval_y after N + 1 rounds, no dropout

Runs are repeated, and every repetition runs all runners one after another, so that what changes on
the machine in between meets all of them.
"""

from __future__ import annotations

import json
import math
import os
import shlex
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fljax.benchmarks import processes

Line = dict[str, Any]

OURS = "fljax"


class Runner(NamedTuple):
    """A command, split into arguments, and the directory it is run in."""

    command: Sequence[str]
    directory: Path


def runner(command: str, directory: str | Path = ".") -> Runner:
    """Returns the runner of a command line; $NAMES in it are environment variables."""
    return Runner(shlex.split(os.path.expandvars(command)), Path(directory))


def harness_runners(directory: str | Path) -> dict[str, Runner]:
    """Returns the runners of a harness: those that `runners.json` in it names, {name: command}.

    Raises:
      ValueError: If the directory is not a harness.
    """
    listed = Path(directory) / "runners.json"
    if not listed.is_file():
        raise ValueError(f"{directory} has no runners.json, a file of {{name: command}}.")
    commands = json.loads(listed.read_text())
    return {name: runner(command, directory) for name, command in commands.items()}


def run(runner: Runner, data: Path, workload: str, rounds: int, timeout: float) -> Line:
    """Runs a runner; returns its line, or {"error": ...} with the end of what it said."""
    arguments = ["--data", str(data.resolve()), "--workload", workload, "--rounds", str(rounds)]
    done = processes.run([*runner.command, *arguments], timeout, directory=runner.directory)
    lines = [text for text in done.output.splitlines() if text.startswith("{")]
    if done.problem is None and lines:
        return _checked(lines[-1])
    return {"error": f"{done.problem or 'printed no line of JSON'}\n{done.errors[-800:]}"}


def _checked(text: str) -> Line:
    """Returns what a runner printed, or an error that says why it is no result."""
    try:
        line = json.loads(text)
    except ValueError:
        return {"error": f"printed no JSON: {text[:200]}"}
    wrong = problem(line)
    return line | {"error": wrong} if wrong else line


def problem(line: Line) -> str | None:
    """Returns why a line is no result of the work that was given; None if it is one."""
    if "error" in line:
        return line["error"]
    for key in ("median_s_per_round", "final_train_loss"):
        value = line.get(key)
        if not isinstance(value, int | float) or not math.isfinite(value):
            return f"{key} is {value}"
    return None


def compare(
    runners: Mapping[str, Runner],
    files: Mapping[str, Path],
    out: Path,
    *,
    rounds: int,
    repetitions: int,
    timeout: float = 900,
    seconds: float = math.inf,
    report: Callable[[str], None] = print,
) -> list[Line]:
    """Runs every runner on every workload, repetition after repetition.

    Args:
      runners: {name: runner}.
      files: {workload: its file}.
      out: A file to which each result is added as a line of JSON; what it holds already is not run
        again.
      rounds: Timed rounds of a run.
      repetitions: How often everything is run.
      timeout: Seconds after which a runner is ended.
      seconds: Time for everything; the runner that it ends with is ended, and no other one begins.
      report: Receives one line of text for each run.

    Returns:
      All lines of the file.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + seconds
    done = {key_of(line) for line in read(out) if problem(line) is None}
    for repetition in range(repetitions):
        for workload, path in files.items():
            # nobody is always first, or always after the same one
            turn = repetition % len(runners)
            names = [*runners][turn:] + [*runners][:turn]
            for name in names:
                if (name, workload, repetition) in done:
                    continue
                left = end - time.monotonic()
                if left <= 0:
                    return read(out)
                line = run(runners[name], path, workload, rounds, min(timeout, left))
                line |= {"runner": name, "workload": workload, "repetition": repetition}
                _append(out, line)
                report(f"{workload} {name} {repetition}: {_short(line)}")
    return read(out)


def read(path: Path) -> list[Line]:
    """Returns the lines of a file of results, without what a kill cut off; none without a file."""
    lines = []
    for number, text in enumerate(path.read_text().splitlines() if path.is_file() else [], 1):
        try:
            lines.append(json.loads(text))
        except ValueError:
            warnings.warn(f"{path}, line {number}, is no JSON and is left out.", stacklevel=2)
    return lines


def _append(path: Path, line: Line) -> None:
    before = path.read_text() if path.is_file() else ""
    # a kill may have cut off the last line
    gap = "\n" if before and not before.endswith("\n") else ""
    with path.open("a") as file:
        file.write(f"{gap}{json.dumps(line)}\n")


def key_of(line: Line) -> tuple[str, str, int]:
    """Returns what tells a line from all others: runner, workload, repetition."""
    return line["runner"], line["workload"], line["repetition"]


def _short(line: Line) -> str:
    if "error" in line:
        return "failed: " + line["error"].strip().splitlines()[0]
    return f"{line['median_s_per_round']:.4g} s/round, final loss {line['final_train_loss']:.6g}"
