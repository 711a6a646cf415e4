"""Runs the sections, each in a process of its own, and writes what they found.

Every section leaves `<section>.json` in the working directory, and after each of them `report.md`
is written anew from all that are there. So a section that fails, or a machine that is taken away,
loses nothing of the others, and single sections can be run again.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fljax.benchmarks.gpu import (
    device_sections,
    peer_section,
    protocol_sections,
    scaling_sections,
)
from fljax.benchmarks.gpu.records import Context, Table
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
    "profile": device_sections.profile,
    "cifar10_cpu": protocol_sections.cifar10_cpu,
    "peers": peer_section.peers,
}
# what a section's process finds in its environment
ENVIRONMENTS = {"cifar10_cpu": {"JAX_PLATFORMS": "cpu"}}


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
            failed = {"title": name, "notes": [], "columns": [], "rows": [], "data": None}
            failed |= {"problem": f"failed: {problem}", "seconds": time.perf_counter() - begin}
            write(workdir, name, failed)
        found = json.loads((workdir / f"{name}.json").read_text())
        good = good and not found["problem"]
        report(f"{name}: {found['problem'] or 'done'} [{found['seconds']:.1f} s]")
        (workdir / REPORT).write_text(markdown(workdir))
    return good


def write(workdir: Path, name: str, result: dict[str, Any]) -> None:
    """Writes the result of a section."""
    (workdir / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")


def markdown(workdir: Path) -> str:
    """Returns all sections of a directory as Markdown, with those that were not run marked so."""
    parts = [_HEAD]
    for name, function in SECTIONS.items():
        path = workdir / f"{name}.json"
        if not path.is_file():
            parts.append(f"## {name}\n\n{function.__doc__.splitlines()[0]} *Not measured.*")
            continue
        found = json.loads(path.read_text())
        table = Table(**{field.name: found[field.name] for field in dataclasses.fields(Table)})
        parts.append(f"{_section(table)}\n\n({name}: {found['seconds']:.1f} s in all)")
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
    try:
        done = subprocess.run(
            command, env=os.environ | environment, timeout=timeout, capture_output=True, text=True
        )
    except subprocess.TimeoutExpired:
        return f"took more than {timeout:.0f} s"
    if done.returncode == 0:
        return None
    print(done.stderr, file=sys.stderr)
    last = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
    return last[-1]
