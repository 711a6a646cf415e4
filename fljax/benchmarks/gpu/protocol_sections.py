"""Sections: whole protocols, end to end, on the accelerator and on the CPU."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from fljax.benchmarks import protocols
from fljax.benchmarks.gpu.common import device, peak
from fljax.benchmarks.gpu.records import Context, Size, Table
from fljax.benchmarks.protocols import Protocol
from fljax.benchmarks.workloads import flops_per_example


def cifar10(context: Context) -> Table:
    """Runs pfl-research's CIFAR-10 protocol end to end, in both precisions."""
    protocol = _cifar10(context.size)
    dataset, what = protocols.cifar10_data(protocol, context.size.real_data)
    return _protocol("CIFAR-10, pfl-research's protocol", protocol, dataset, what, context.size)


def emnist(context: Context) -> Table:
    """Runs FedJAX's EMNIST protocol end to end, in both precisions."""
    size = context.size
    protocol = _resized(
        protocols.emnist(size.rounds, min(10 * size.eval_every, size.rounds)),
        size, population=size.writers, shape=size.shapes["gray"],
    )  # fmt: skip
    dataset, what = protocols.emnist_data(protocol)
    return _protocol("EMNIST, FedJAX's protocol", protocol, dataset, what, size)


def _protocol(title: str, protocol, dataset, what: str, size: Size) -> Table:
    rows, results = [], {}
    flops = flops_per_example(protocol.workload)
    for precision in protocols.PRECISIONS:
        figures = results[precision] = protocols.run(
            protocol, dataset, precision, **_without_search(size)
        )
        achieved = figures["examples_per_second"] * flops
        share = figures["share_of_peak"] = achieved / peak(precision, size)
        rows.append(
            [
                precision,
                f"{figures['seconds']:.2f}",
                f"{figures['compile_seconds']:.1f}",
                f"{figures['wall_seconds']:.1f}",
                f"{figures['examples_per_second']:,.0f}",
                f"{share:.0%}",
                f"{figures['accuracy']:.4f}",
                f"{figures['loss']:.4f}",
                str(figures["execution"]["lanes"]),
            ]
        )
    cohort, batch = protocol.workload.cohort, protocol.workload.batch_size
    notes = [
        f"{protocol.workload.title}: {what}; {protocol.rounds:,} rounds of {cohort} clients, batch "
        f"{batch}, one epoch, evaluated on {dataset.test.num_rows:,} rows every "
        f"{protocol.eval_every} rounds; {flops / 1e6:,.1f} MFLOP an example.",
        "Seconds are those of all rounds and evaluations after the first "
        f"{protocol.eval_every} rounds, in which everything compiles.",
        device(),
    ]
    columns = [
        "precision", "seconds", "compile s", "whole run s", "examples/s", "of peak",
        "test accuracy", "test loss", "lanes",
    ]  # fmt: skip
    return Table(title, notes, columns, rows, results)


def cifar10_cpu(context: Context) -> Table:
    """Runs the CIFAR-10 protocol on the CPU, and sets its accuracy beside what the GPU reached."""
    size = context.size
    protocol = _cifar10(dataclasses.replace(size, rounds=size.cpu_rounds))
    dataset, what = protocols.cifar10_data(protocol, size.real_data)
    figures = protocols.run(protocol, dataset, "float32", **_without_search(size))
    results = {"CPU, float32": figures}
    finished = context.workdir / "cifar10.json"
    if finished.is_file():
        others = json.loads(finished.read_text())["data"] or {}
        results = {f"this device, {name}": other for name, other in others.items()} | results
    every = max(size.eval_every, size.cpu_rounds // 5 // size.eval_every * size.eval_every)
    rounds = range(every, size.cpu_rounds + 1, every)
    rows = [
        [name, *(_accuracy(other["curve"], round) for round in rounds)]
        for name, other in results.items()
    ]
    notes = [
        f"{what}, the same seed, cohorts and order of examples; {figures['seconds']:.1f} s for "
        f"{size.cpu_rounds:,} rounds on the CPU.",
        device(),
    ]
    columns = ["test accuracy after", *(f"{round:,} rounds" for round in rounds)]
    return Table("CIFAR-10 on a CPU beside it", notes, columns, rows, figures)


def _without_search(size: Size) -> dict[str, bool]:
    return {} if size.calibrate else {"calibrate": False}


def _cifar10(size: Size) -> Protocol:
    return _resized(
        protocols.cifar10(size.rounds, size.eval_every),
        size, population=size.population, cohort=size.cohort, shape=size.shapes["color"],
    )  # fmt: skip


def _resized(protocol: Protocol, size: Size, **changes: Any) -> Protocol:
    changes.setdefault("cohort", min(protocol.workload.cohort, changes["population"]))
    workload = dataclasses.replace(protocol.workload, **changes)
    return dataclasses.replace(protocol, workload=workload, test_rows=size.test_rows)


def _accuracy(curve: dict, round: int) -> str:
    """Returns the accuracy after a round; JSON has made text of the rounds."""
    found = curve.get(round, curve.get(str(round)))
    return "" if found is None else f"{found:.4f}"
