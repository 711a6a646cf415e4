"""Runs the sections, each in a process of its own, and writes what they found.

Every section leaves `<section>.json` in the working directory, and after each of them `report.md`
is written anew from all that are there. So a section that fails, or a machine that is taken away,
loses nothing of the others, and single sections can be run again. One that succeeded keeps its file
when it fails later: the failure is kept beside it, in `<section>.failed.json`.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fljax.benchmarks import processes
from fljax.benchmarks.gpu import (
    conv_section,
    device_sections,
    peer_section,
    protocol_sections,
    scaling_sections,
)
from fljax.benchmarks.gpu.records import Context, Table
from fljax.core.files import atomic_file
from fljax.recording import say
from fljax.recording.jsonio import plain

REPORT = "report.md"
_HEAD = """# fljax on one accelerator

Written by `python scripts/gpu_report.py`. Times of float32 and of TF32 products stand side by side;
elementwise operations and parameters are float32 in both."""

# in the order in which they are run; the quick and the important ones first
SECTIONS: dict[str, Callable[[Context], Table]] = {
    "peaks": device_sections.peaks,
    "kernels": device_sections.kernels,
    "cifar10": protocol_sections.cifar10,
    "emnist": protocol_sections.emnist,
    "cohorts": scaling_sections.cohorts,
    "lanes": scaling_sections.lanes,
    "conv_forms": conv_section.conv_forms,
    "profile": device_sections.profile,
    "cifar10_cpu": protocol_sections.cifar10_cpu,
    "peers": peer_section.peers,
}
# what a section's process finds in its environment
ENVIRONMENTS = {"cifar10_cpu": {"JAX_PLATFORMS": "cpu"}}
# workdir -> what a section that was ended had found by then
SO_FAR: dict[str, Callable[[Path], list[str]]] = {"peers": peer_section.so_far}


def run_section(name: str, context: Context) -> dict[str, Any]:
    """Runs a section in this process; returns its table and seconds."""
    begin = time.perf_counter()
    table = SECTIONS[name](context)
    return plain(dataclasses.asdict(table)) | {"seconds": time.perf_counter() - begin}


def run_sections(
    names: Sequence[str],
    command: Sequence[str],
    workdir: Path,
    *,
    timeout: float,
    report: Callable[[str], None] = print,
) -> bool:
    """Runs sections one after another; returns whether all of them succeeded.

    Args:
      names: Sections.
      command: Runs one section, whose name is added to it, and leaves its JSON file in `workdir`.
      workdir: Where files go.
      timeout: Seconds after which a section is ended.
      report: Receives a line of text for each section.
    """
    good = True
    for name in names:
        begin = time.perf_counter()
        problem = _run_in_a_process([*command, name], ENVIRONMENTS.get(name, {}), timeout)
        if problem:
            notes = SO_FAR[name](workdir) if name in SO_FAR else []
            failed = {"title": name, "notes": notes, "columns": [], "rows": [], "data": None}
            failed |= {"problem": f"failed: {problem}", "seconds": time.perf_counter() - begin}
            write(workdir, name, failed)
        found = _read(_failure(workdir, name)) or _read(_result(workdir, name))
        good = good and not found["problem"]
        report(f"{name}: {found['problem'] or 'done'} [{found['seconds']:.1f} s]")
        with atomic_file(workdir / REPORT) as file:
            file.write(markdown(workdir).encode())
    return good


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


def _result(workdir: Path, name: str) -> Path:
    return workdir / f"{name}.json"


def _failure(workdir: Path, name: str) -> Path:
    return workdir / f"{name}.failed.json"


def _read(path: Path) -> dict[str, Any] | None:
    return json.loads(path.read_text()) if path.is_file() else None


def markdown(workdir: Path) -> str:
    """Returns all sections of a directory as Markdown, with those that were not run marked so."""
    parts = [_HEAD]
    for name, function in SECTIONS.items():
        found, failed = _read(_result(workdir, name)), _read(_failure(workdir, name))
        if found is None:
            parts.append(f"## {name}\n\n{function.__doc__.splitlines()[0]} *Not measured.*")
            continue
        table = Table(**{field.name: found[field.name] for field in dataclasses.fields(Table)})
        parts.append(f"{_section(table)}\n\n({name}: {found['seconds']:.1f} s in all)")
        if failed:
            parts.append(f"**Run again later, it {failed['problem']}**")
    return "\n\n".join(parts) + "\n"


def _section(table: Table) -> str:
    parts = [f"## {table.title}"]
    if table.problem:
        parts.append(f"**{table.problem}**")
    parts += table.notes
    if table.rows:
        lines = [table.columns, ["---"] * len(table.columns), *table.rows]
        parts.append("\n".join(f"| {' | '.join(line)} |" for line in lines))
    return "\n\n".join(parts)


def _run_in_a_process(command: Sequence[str], environment: dict, timeout: float) -> str | None:
    """Runs a command; returns what went wrong, if anything did."""
    done = processes.run(command, timeout, environment=environment)
    if done.problem is None:
        return None
    say(done.errors)
    last = done.errors.strip().splitlines()
    return last[-1] if last and done.problem.startswith("ended") else done.problem
