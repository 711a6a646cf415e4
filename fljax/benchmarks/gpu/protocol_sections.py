"""Runs whole protocols, end to end, on the accelerator and on the CPU."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from fljax.benchmarks import protocols
from fljax.benchmarks.gpu.common import FIRST_ROUND_SECONDS, device, peak
from fljax.benchmarks.gpu.kept_data import kept
from fljax.benchmarks.gpu.records import Bar, Context, Size, Table
from fljax.benchmarks.protocols import Protocol
from fljax.benchmarks.workloads import flops_per_example, generate
from fljax.data.dataset import FederatedDataset

# seconds of all rounds and evaluations, once all has compiled
_CIFAR10_SECONDS, _EMNIST_SECONDS = 10.0, 8.0


class _Run(NamedTuple):
    """A protocol with its data, a sentence on them, and the bar on its seconds."""

    title: str
    protocol: Protocol
    dataset: FederatedDataset
    what: str
    bar: float


def cifar10(context: Context) -> Iterator[Table]:
    """Runs pfl-research's CIFAR-10 protocol end to end, with products in TF32."""
    run = _cifar10_run(context)
    yield from _tables(context, run.title, [(run, "TF32")])


def emnist(context: Context) -> Iterator[Table]:
    """Runs FedJAX's EMNIST protocol end to end, with products in TF32."""
    run = _emnist_run(context)
    yield from _tables(context, run.title, [(run, "TF32")])


def float32(context: Context) -> Iterator[Table]:
    """Runs both protocols with products in float32."""
    runs = [(make(context), "float32") for make in (_cifar10_run, _emnist_run)]
    yield from _tables(context, "Both protocols in float32", runs)


def _cifar10_run(context: Context) -> _Run:
    protocol = _cifar10(context.size)
    dataset, what = protocols.cifar10_data(protocol, context.size.real_data, _keeper(context))
    return _Run("CIFAR-10, pfl-research's protocol", protocol, dataset, what, _CIFAR10_SECONDS)


def _emnist_run(context: Context) -> _Run:
    size = context.size
    protocol = _resized(
        protocols.emnist(size.rounds, min(10 * size.eval_every, size.rounds)),
        size, population=size.writers, shape=size.shapes["gray"],
    )  # fmt: skip
    dataset, what = protocols.emnist_data(protocol, _keeper(context))
    return _Run("EMNIST, FedJAX's protocol", protocol, dataset, what, _EMNIST_SECONDS)


def _keeper(context: Context) -> protocols.Generate:
    """Returns what generates the data of a workload once for all sections."""

    def generate_once(workload, test_rows):
        make = lambda: generate(workload, test_rows=test_rows)  # noqa: E731
        return kept(context.workdir, f"{workload.model}_{workload.population}_{test_rows}", make)

    return generate_once


def _tables(context: Context, title: str, runs: Sequence[tuple[_Run, str]]) -> Iterator[Table]:
    """Yields the table of protocols, each in a precision, as it grows."""
    rows, results, bars = [], {}, []
    notes = [_note(run) for run, _ in runs]
    notes += [
        "Seconds are those of all rounds and evaluations after those up to the first evaluation, "
        "in which everything compiles.",
        device(),
    ]
    columns = [
        "protocol", "precision", "seconds", "compile s", "first round s", "whole run s",
        "examples/s", "of peak", "test accuracy", "test loss", "lanes",
    ]  # fmt: skip
    for run, precision in runs:
        figures = protocols.run(
            run.protocol, run.dataset, precision, **_without_search(context.size)
        )
        flops = flops_per_example(run.protocol.workload)
        achieved = figures["examples_per_second"] * flops
        share = figures["share_of_peak"] = achieved / peak(precision, context.size)
        results[f"{run.title}, {precision}"] = figures
        rows.append(
            [
                run.title,
                precision,
                f"{figures['seconds']:.2f}",
                f"{figures['compile_seconds']:.1f}",
                f"{figures['first_round_seconds']:.1f}",
                f"{figures['wall_seconds']:.1f}",
                f"{figures['examples_per_second']:,.0f}",
                f"{share:.0%}",
                f"{figures['accuracy']:.4f}",
                f"{figures['loss']:.4f}",
                str(figures["execution"]["lanes"]),
            ]
        )
        if precision == "TF32":
            bars.append(Bar(run.title, figures["seconds"], run.bar, "s"))
            if context.is_cold:
                first = figures["first_round_seconds"]
                bars.append(Bar(f"{run.title}, first round", first, FIRST_ROUND_SECONDS, "s"))
        yield Table(title, notes, columns, rows, results, bars=bars)


def _note(run: _Run) -> str:
    workload = run.protocol.workload
    return (
        f"{workload.title}: {run.what}; {run.protocol.rounds:,} rounds of {workload.cohort} "
        f"clients, batch {workload.batch_size}, one epoch, evaluated on "
        f"{run.dataset.test.num_rows:,} rows every {run.protocol.eval_every} rounds; "
        f"{flops_per_example(workload) / 1e6:,.1f} MFLOP an example."
    )


def cifar10_cpu(context: Context) -> Iterator[Table]:
    """Runs the CIFAR-10 protocol on the CPU, and sets its accuracy beside what the GPU reached."""
    size = context.size
    protocol = _cifar10(dataclasses.replace(size, rounds=size.cpu_rounds))
    dataset, what = protocols.cifar10_data(protocol, size.real_data, _keeper(context))
    figures = protocols.run(protocol, dataset, "float32", **_without_search(size))
    results = {"CPU, float32": figures}
    for section in ("float32", "cifar10"):
        finished = context.workdir / f"{section}.json"
        others = json.loads(finished.read_text())["data"] or {} if finished.is_file() else {}
        mine = {name: other for name, other in others.items() if name.startswith("CIFAR-10")}
        results = {
            f"this device, {name.rpartition(', ')[-1]}": other for name, other in mine.items()
        } | results
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
    yield Table("CIFAR-10 on a CPU beside it", notes, columns, rows, figures)


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
