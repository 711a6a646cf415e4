"""Section: other simulators at the same work on the same device."""

from __future__ import annotations

import dataclasses

import jax

from fljax.benchmarks import comparison, comparison_table, neutral, workload_file
from fljax.benchmarks.gpu.records import Context, Table
from fljax.benchmarks.workloads import WORKLOADS


def peers(context: Context) -> Table:
    """Gives the same work to other simulators on the same device."""
    size = context.size
    names = ("cifar10_cnn_50", "emnist_cnn_10")
    files = {name: context.workdir / f"{name}.npz" for name in names}
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
    out = context.workdir / "peers.jsonl"
    lines = comparison.compare(
        context.runners, files, out, rounds=size.peer_rounds, repetitions=size.peer_repetitions
    )
    failed = [line["runner"] for line in lines if comparison.problem(line)]
    return Table(
        "Other simulators on the same device",
        [comparison_table.table(lines)],
        [],
        [],
        lines,
        problem=f"failed: {', '.join(dict.fromkeys(failed))}" if failed else None,
    )
