"""Benchmarks of the round program on generated data: what `scripts/benchmark.py` runs.

A workload fixes data, model and algorithm. A round is timed from the arrival of one server model to
that of the next, so what is not hidden behind the devices (planning, dispatch) counts as well.
There is no evaluation, and one first round, which compiles, is not counted.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from fljax import algorithms, models
from fljax.data.dataset import ArrayExamples, FederatedDataset, Partition, Split
from fljax.federation import RoundOptions, build
from fljax.recording import host_peak_memory_bytes, versions
from fljax.tasks import classification


class Workload(NamedTuple):
    """One benchmark.

    Attributes:
      title: What it is.
      model: Name in `fljax.models`.
      shape: Shape of one input.
      classes: Number of classes.
      population: Number of clients.
      cohort: Clients a round.
      sizes: (generator, population) -> rows of each client.
      batch_size: Rows of a batch.
      client_lr: Learning rate.
    """

    title: str
    model: str
    shape: tuple[int, ...]
    classes: int
    population: int
    cohort: int
    sizes: Callable[[np.random.Generator, int], np.ndarray]
    batch_size: int
    client_lr: float


def power_law(generator: np.random.Generator, count: int) -> np.ndarray:
    """Returns Pareto-tailed sizes from 10 to 1,000 with a mean near 60."""
    return np.clip(np.round(10 + 20 * generator.pareto(1.35, count)), 10, 1000).astype(np.int64)


def writers(generator: np.random.Generator, count: int) -> np.ndarray:
    """Returns log-normal sizes as FEMNIST's: mean 200, standard deviation 80, 10 to 500."""
    variance = np.log(1 + (80 / 200) ** 2)
    sizes = generator.lognormal(np.log(200) - variance / 2, np.sqrt(variance), count)
    return np.clip(np.round(sizes), 10, 500).astype(np.int64)


def equal(size: int) -> Callable[[np.random.Generator, int], np.ndarray]:
    """Returns a function that gives every client the same number of rows."""
    return lambda generator, count: np.full(count, size)


_IMAGE = (28, 28, 1)
WORKLOADS = {
    "softmax_100": Workload(
        "softmax regression, cohort 100", "softmax_regression", (784,), 10, 1000, 100, power_law,
        10, 0.01,
    ),
    "softmax_1000": Workload(
        "softmax regression, cohort 1,000", "softmax_regression", (784,), 10, 1000, 1000,
        power_law, 10, 0.01,
    ),
    "mlp_100": Workload(
        "MLP 784-200-200-10, cohort 100 x 600 rows", "mlp", (784,), 10, 100, 100, equal(600), 10,
        0.1,
    ),
    "emnist_cnn_10": Workload(
        "EMNIST CNN, cohort 10", "emnist_cnn", _IMAGE, 62, 300, 10, writers, 20, 0.1
    ),
    "emnist_cnn_100": Workload(
        "EMNIST CNN, cohort 100", "emnist_cnn", _IMAGE, 62, 300, 100, writers, 20, 0.1
    ),
}  # fmt: skip


def run(name: str, rounds: int = 5, seed: int = 0, **options: Any) -> dict[str, Any]:
    """Runs a workload; returns its figures.

    Args:
      name: One of `WORKLOADS`.
      rounds: Timed rounds.
      seed: Seed of data and run.
      **options: Fields of `RoundOptions` that override the workload's.
    """
    workload = WORKLOADS[name]
    dataset = _data(workload, seed)
    model = models.make(workload.model, workload.classes, workload.shape)
    begin = time.perf_counter()
    federation = build(
        dataset,
        classification(model, workload.classes),
        algorithms.fedavg(workload.client_lr),
        RoundOptions(
            num_rounds=rounds + 1,
            clients_per_round=workload.cohort,
            batch_size=workload.batch_size,
            seed=seed,
            **options,
        ),
    )
    seconds, facts_seen = [], []
    for plan, facts in federation.plans(0, rounds + 1):
        federation.step(plan, facts)
        jax.block_until_ready(federation.state)
        end = time.perf_counter()
        seconds.append(end - begin)
        begin = end
        facts_seen.append(facts)
    first, timed = seconds[0], seconds[1:]
    rows = [facts.rows_real for facts in facts_seen[1:]]
    return {
        "workload": name,
        "title": workload.title,
        "rounds": rounds,
        "seconds_median": statistics.median(timed),
        "seconds_min": min(timed),
        "seconds_max": max(timed),
        "first_round_seconds": first,
        "clients_per_second": workload.cohort / statistics.median(timed),
        "examples_per_second": statistics.median(
            count / second for count, second in zip(rows, timed, strict=True)
        ),
        "utilization": sum(rows) / sum(facts.rows_computed for facts in facts_seen[1:]),
        "peak_memory_bytes": host_peak_memory_bytes(),
        "execution": federation.execution._asdict(),
        "seed": seed,
        **machine(),
    }


def machine() -> dict[str, Any]:
    """Returns what a figure depends on besides the code."""
    devices = jax.devices()
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "devices": f"{len(devices)} x {devices[0].device_kind}",
        "matmul_precision": jax.config.jax_default_matmul_precision or "default",
        "date": time.strftime("%Y-%m-%d"),
        "versions": versions(),
    }


def table(results: Sequence[dict[str, Any]]) -> str:
    """Returns the results as a Markdown table."""
    lines = [
        "| workload | s/round median | min | max | first round s | clients/s | examples/s "
        "| utilization | peak MB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for one in results:
        lines.append(
            f"| {one['title']} | {one['seconds_median']:.4f} | {one['seconds_min']:.4f} "
            f"| {one['seconds_max']:.4f} | {one['first_round_seconds']:.2f} "
            f"| {one['clients_per_second']:,.0f} | {one['examples_per_second']:,.0f} "
            f"| {one['utilization']:.0%} | {one['peak_memory_bytes'] / 1e6:,.0f} |"
        )
    return "\n".join(lines)


def compare(before: str | Path, after: str | Path) -> str:
    """Returns a Markdown table of the ratios between two files of results."""
    old, new = (
        {one["workload"]: one for one in json.loads(Path(path).read_text())}
        for path in (before, after)
    )
    lines = ["| workload | s/round before | after | before / after |", "|---|---|---|---|"]
    for name in old.keys() & new.keys():
        first, second = old[name]["seconds_median"], new[name]["seconds_median"]
        lines.append(
            f"| {new[name]['title']} | {first:.4f} | {second:.4f} | {first / second:.2f} |"
        )
    return "\n".join(lines)


def _data(workload: Workload, seed: int) -> FederatedDataset:
    """Returns class prototypes plus noise, spread over ragged clients."""
    generator = np.random.default_rng([seed, 7])
    sizes = workload.sizes(generator, workload.population)
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    labels = generator.integers(0, workload.classes, offsets[-1]).astype(np.int32)
    prototypes = generator.standard_normal((workload.classes, *workload.shape), np.float32)
    x = generator.standard_normal((offsets[-1], *workload.shape), np.float32)
    x *= 0.5
    x += 0.15 * prototypes[labels]
    return FederatedDataset(
        name="benchmark",
        kind="classification",
        num_classes=workload.classes,
        train=Split(ArrayExamples({"x": x, "y": labels}), Partition(offsets, None)),
    )


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
