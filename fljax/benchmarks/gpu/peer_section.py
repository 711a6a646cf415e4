"""Section: other simulators at the same work on the same device."""

from __future__ import annotations

import dataclasses
import itertools
import time
from pathlib import Path

import jax

from fljax.benchmarks import comparison, comparison_table, neutral, workload_file
from fljax.benchmarks.gpu.records import Context, Table
from fljax.benchmarks.workloads import WORKLOADS

_TITLE = "Other simulators on the same device"
_NAMES = ("cifar10_cnn_50", "emnist_cnn_10")
_RESULTS = "peers.jsonl"
# of the section's time, what is left for the table
_RESERVE_SECONDS = 10.0


def peers(context: Context) -> Table:
    """Gives the same work to other simulators on the same device."""
    begin, size = time.monotonic(), context.size
    files = {name: context.workdir / f"{name}.npz" for name in _NAMES}
    # this process only writes the files; the device's memory is for the runners
    jax.config.update("jax_platforms", "cpu")
    for name, path in files.items():
        workload = WORKLOADS[name]
        kind = "color" if workload.shape[-1] == 3 else "gray"
        population = min(workload.population, size.population)
        workload = dataclasses.replace(
            workload, shape=size.shapes[kind], population=population,
            cohort=min(workload.cohort, population),
        )  # fmt: skip
        workload_file.write(path, neutral.make_file(name, workload))
    lines = comparison.compare(
        context.runners,
        files,
        context.workdir / _RESULTS,
        rounds=size.peer_rounds,
        repetitions=size.peer_repetitions,
        seconds=context.seconds - _RESERVE_SECONDS - (time.monotonic() - begin),
    )
    wanted = itertools.product(context.runners, files, range(size.peer_repetitions))
    missing = set(wanted) - {comparison.key_of(line) for line in lines}
    said = [f"no time was left for {len(missing)} runs"] if missing else []
    good = {comparison.key_of(line) for line in lines if comparison.problem(line) is None}
    failed = [line["runner"] for line in lines if comparison.key_of(line) not in good]
    if failed:
        said.append(f"failed: {', '.join(dict.fromkeys(failed))}")
    return Table(_TITLE, _notes(lines), [], [], lines, problem="; ".join(said) or None)


def so_far(workdir: Path) -> list[str]:
    """Returns the notes of a section that was ended: the tables of what had been run by then."""
    return _notes(comparison.read(workdir / _RESULTS))


def _notes(lines: list[comparison.Line]) -> list[str]:
    return [comparison_table.table(lines)] if lines else []
