"""Runs other simulators at the same work on the same device."""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Iterator

import jax

from fljax.benchmarks import comparison, comparison_table, neutral, workload_file
from fljax.benchmarks.gpu.records import Context, Table
from fljax.benchmarks.workloads import WORKLOADS
from fljax.core.files import atomic_file

_TITLE = "Other simulators on the same device"
_RESULTS = "peers.jsonl"
# of the section's time, what is left for the table
_RESERVE_SECONDS = 10.0


def peers(context: Context) -> Iterator[Table]:
    """Gives the same work to other simulators on the same device."""
    begin, size = time.monotonic(), context.size
    files = {name: context.workdir / f"{name}.npz" for name in size.peer_workloads}
    # this process only writes the files; the device's memory is for the runners
    jax.config.update("jax_platforms", "cpu")
    for name, path in files.items():
        if path.is_file():
            continue
        workload = WORKLOADS[name]
        kind = "color" if workload.shape[-1] == 3 else "gray"
        population = min(workload.population, size.population)
        workload = dataclasses.replace(
            workload, shape=size.shapes[kind], population=population,
            cohort=min(workload.cohort, population),
        )  # fmt: skip
        with atomic_file(path) as file:
            workload_file.write(file, neutral.make_file(name, workload))
    out = context.workdir / _RESULTS
    wanted = set(itertools.product(context.runners, files, range(size.peer_repetitions)))
    # one repetition after another, so that the table is there while the next one runs
    for repetitions in range(1, size.peer_repetitions + 1):
        lines = comparison.compare(
            context.runners,
            files,
            out,
            rounds=size.peer_rounds,
            repetitions=repetitions,
            seconds=context.seconds - _RESERVE_SECONDS - (time.monotonic() - begin),
        )
        yield Table(_TITLE, _notes(lines), [], [], lines, problem=_problem(lines, wanted))


def _problem(lines: list[comparison.Line], wanted: set[tuple[str, str, int]]) -> str | None:
    missing = wanted - {comparison.key_of(line) for line in lines}
    said = [f"no time was left for {len(missing)} runs"] if missing else []
    good = {comparison.key_of(line) for line in lines if comparison.problem(line) is None}
    failed = [line["runner"] for line in lines if comparison.key_of(line) not in good]
    if failed:
        said.append(f"failed: {', '.join(dict.fromkeys(failed))}")
    return "; ".join(said) or None


def _notes(lines: list[comparison.Line]) -> list[str]:
    return [comparison_table.table(lines)] if lines else []
