"""Runs the sections, each in a process of its own, within a budget, and writes what they found.

A section leaves `<section>.json` in the working directory each time it has found something more,
and `report.md` is written anew from all that are there. So a section that fails or runs out of
time, or a machine that is taken away, loses nothing that was found, and single sections can be run
again. One that was finished keeps its file when it fails later: what is found then stands beside
it, in `<section>.failed.json`.
"""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fljax.benchmarks import processes
from fljax.benchmarks.gpu import (
    conv_section,
    device_sections,
    flag_section,
    lstm_section,
    peer_section,
    protocol_sections,
    scaling_sections,
)
from fljax.benchmarks.gpu.records import Bar, Context, Table
from fljax.core.files import atomic_file
from fljax.recording import say
from fljax.recording.jsonio import plain

REPORT = "report.md"
# compiled programs and layouts: what a section finds here, one before it has compiled
_CACHE = "cache"
# a process that has less time finds nothing
_LEAST_SECONDS = 10.0
_HEAD = """# fljax on one accelerator

Written by `python scripts/gpu_report.py`. Elementwise operations and parameters are float32; the
precision of matrix products, TF32 or float32, stands beside the figures."""


class Section(NamedTuple):
    """A section.

    Attributes:
      run: Yields its table, again and again as it grows.
      seconds: Of ten minutes, what it may take where those before it have left nothing.
      environment: Variables of its process.
    """

    run: Callable[[Context], Iterator[Table]]
    seconds: float
    environment: Mapping[str, str] = {}


# in the order in which they are run, what matters first; together they fit into ten minutes
SECTIONS: dict[str, Section] = {
    "softmax": Section(scaling_sections.softmax, 35),
    "cifar10": Section(protocol_sections.cifar10, 60),
    "emnist": Section(protocol_sections.emnist, 60),
    "cohorts": Section(scaling_sections.cohorts, 70),
    "flags": Section(flag_section.flags, 95),
    "peers": Section(peer_section.peers, 50),
    "kernels": Section(device_sections.kernels, 25),
    "peaks": Section(device_sections.peaks, 15),
    "conv_forms": Section(conv_section.conv_forms, 30),
    "lstm_forms": Section(lstm_section.lstm_forms, 30),
    "float32": Section(protocol_sections.float32, 50),
    "lanes": Section(scaling_sections.lanes, 20),
    "profile": Section(device_sections.profile, 20),
    "cifar10_cpu": Section(protocol_sections.cifar10_cpu, 40, {"JAX_PLATFORMS": "cpu"}),
}


def run_section(
    name: str, context: Context, keep: Callable[[dict[str, Any]], None] = lambda result: None
) -> dict[str, Any]:
    """Runs a section in this process; returns its table and seconds.

    Args:
      name: The section.
      context: Its context.
      keep: Receives what has been found so far, each time that there is more.
    """
    begin = time.perf_counter()
    result: dict[str, Any] = {}
    for table in SECTIONS[name].run(context):
        result = plain(dataclasses.asdict(table)) | {"seconds": time.perf_counter() - begin}
        keep(result | {"problem": result["problem"] or _UNFINISHED})
    return result


_UNFINISHED = "not finished"


def run_sections(
    names: Sequence[str],
    command: Sequence[str],
    workdir: Path,
    *,
    seconds: float,
    report: Callable[[str], None] = print,
) -> bool:
    """Runs sections one after another; returns whether all of them succeeded.

    Args:
      names: Sections.
      command: Runs one section, whose name and seconds are added to it, and writes what it finds.
      workdir: Where files go.
      seconds: Time for all of them, shared as `seconds_of_next` says; those for which nothing is
        left are not run.
      report: Receives a line of text for each section.
    """
    end = time.monotonic() + seconds
    good = True
    for place, name in enumerate(names):
        begin, left = time.monotonic(), end - time.monotonic()
        limit = seconds_of_next(names[place:], left)
        if limit < min(_LEAST_SECONDS, SECTIONS[name].seconds * seconds / 600):
            report(f"{name}: no time was left")
            good = False
            continue
        problem = _run_in_a_process(
            [*command, f"--seconds={limit}", f"--one={name}"],
            {"FLJAX_CACHE_DIR": str(workdir / _CACHE), **SECTIONS[name].environment},
            limit,
        )
        if problem:
            _say_what_failed(workdir, name, problem, time.monotonic() - begin)
        found = _read(_failure(workdir, name)) or _read(_result(workdir, name))
        good = good and not found["problem"]
        report(f"{name}: {found['problem'] or 'done'} [{time.monotonic() - begin:.1f} s]")
        with atomic_file(workdir / REPORT) as file:
            file.write(markdown(workdir).encode())
    return good


def seconds_of_next(names: Sequence[str], left: float) -> float:
    """Returns how long the next section may take: its share of what is left.

    So what a section has not used goes to all those after it.

    Args:
      names: The sections still to be run, the next one first.
      left: Seconds for all of them.
    """
    shares = [SECTIONS[name].seconds for name in names]
    return left * shares[0] / sum(shares)


def was_run(workdir: Path, name: str) -> bool:
    """Returns whether a section has been begun in a directory."""
    return _result(workdir, name).is_file() or _failure(workdir, name).is_file()


def write(workdir: Path, name: str, result: dict[str, Any]) -> None:
    """Writes the result of a section; a failure never replaces a result without a problem."""
    before = _read(_result(workdir, name))
    path, failure = _result(workdir, name), _failure(workdir, name)
    if result["problem"] and before and not before["problem"]:
        path = failure
    else:
        failure.unlink(missing_ok=True)
    with atomic_file(path) as file:
        file.write(json.dumps(result, indent=1).encode() + b"\n")


def _say_what_failed(workdir: Path, name: str, problem: str, seconds: float) -> None:
    """Writes that a section failed, beside what it had found by then."""
    found: dict[str, Any] = {"title": name, "notes": [], "columns": [], "rows": [], "data": None}
    for path in (_failure(workdir, name), _result(workdir, name)):
        before = _read(path)
        if before and before["problem"] == _UNFINISHED:
            found = before
    write(workdir, name, found | {"problem": f"failed: {problem}", "seconds": seconds})


def _result(workdir: Path, name: str) -> Path:
    return workdir / f"{name}.json"


def _failure(workdir: Path, name: str) -> Path:
    return workdir / f"{name}.failed.json"


def _read(path: Path) -> Any:
    return json.loads(path.read_text()) if path.is_file() else None


def markdown(workdir: Path) -> str:
    """Returns all sections of a directory as Markdown, with those that were not run marked so."""
    parts, bars = [], []
    for name, section in SECTIONS.items():
        found, failed = _read(_result(workdir, name)), _read(_failure(workdir, name))
        if found is None:
            parts.append(f"## {name}\n\n{section.run.__doc__.splitlines()[0]} *Not measured.*")
            continue
        table = _table_of(found)
        bars += table.bars
        parts.append(f"{_section(table)}\n\n({name}: {found['seconds']:.1f} s in all)")
        if failed:
            parts.append(f"**Run again later, it {failed['problem']}**")
    return "\n\n".join([_HEAD, *_bars(bars), *parts]) + "\n"


def _table_of(found: Mapping[str, Any]) -> Table:
    fields = {
        field.name: found[field.name] for field in dataclasses.fields(Table) if field.name in found
    }
    bars = [
        # JSON has no NaN
        Bar(**bar | {"found": math.nan if bar["found"] is None else bar["found"]})
        for bar in found.get("bars", [])
    ]
    return Table(**fields | {"bars": bars})


def _bars(bars: Sequence[Bar]) -> list[str]:
    """Returns the table of all bars; nothing where there is none."""
    rows = [
        [
            bar.what,
            f"{bar.found:,.2f} {bar.unit}",
            f"{'at least' if bar.at_least else 'at most'} {bar.limit:,g} {bar.unit}",
            "met" if bar.is_met else "**missed**",
        ]
        for bar in bars
    ]
    return [_lines(["figure", "found", "bar", ""], rows)] if rows else []


def _section(table: Table) -> str:
    parts = [f"## {table.title}"]
    if table.problem:
        parts.append(f"**{table.problem}**")
    parts += table.notes
    if table.rows:
        parts.append(_lines(table.columns, table.rows))
    return "\n\n".join(parts)


def _lines(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _run_in_a_process(
    command: Sequence[str], environment: Mapping[str, str], timeout: float
) -> str | None:
    """Runs a command; returns what went wrong, if anything did."""
    done = processes.run(command, timeout, environment=environment)
    if done.problem is None:
        return None
    say(done.errors)
    last = done.errors.strip().splitlines()
    return last[-1] if last and done.problem.startswith("ended") else done.problem
