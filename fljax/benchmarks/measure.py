"""Measures a workload: seconds, rates, memory, share of the matrix peak."""

from __future__ import annotations

import statistics
import time
from typing import Any

from fljax import algorithms
from fljax.benchmarks.machine import compilation_clock, machine
from fljax.benchmarks.timing import time_rounds
from fljax.benchmarks.workloads import (
    Workload,
    flops_per_example,
    generate,
    make_model,
    make_task,
)
from fljax.data.dataset import FederatedDataset
from fljax.engine.plan.round_plan import HostPlan
from fljax.recording import host_peak_memory_bytes, peak_memory_bytes
from fljax.training.federation import Federation, RoundOptions, build


def run(
    name: str,
    workload: Workload,
    *,
    rounds: int = 5,
    seed: int = 0,
    dataset: FederatedDataset | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Runs a workload; returns its figures.

    There is no evaluation, and one first round, which compiles, is not among the timed ones.

    Args:
      name: What the result is called.
      workload: What is run.
      rounds: Timed rounds.
      seed: Seed of data and run.
      dataset: The workload's data, where they have been generated already.
      **options: Fields of `RoundOptions` that override the workload's.
    """
    dataset = dataset or generate(workload, seed)
    with compilation_clock() as compiled:
        begin = time.perf_counter()
        federation = make_federation(workload, rounds + 1, dataset, seed=seed, **options)
        seconds, facts = time_rounds(federation, rounds + 1, begin)
        compile_seconds = compiled()
    return {
        "workload": name,
        "title": workload.title,
        **round_figures(federation, seconds, facts),
        "compile_seconds": compile_seconds,
        "peak_memory_bytes": peak_memory_bytes(),
        "host_peak_memory_bytes": host_peak_memory_bytes(),
        "flops_per_example": flops_per_example(workload),
        "seed": seed,
        **machine(),
    }


def make_federation(
    workload: Workload,
    num_rounds: int,
    dataset: FederatedDataset | None = None,
    **options: Any,
) -> Federation:
    """Builds the federation of a workload.

    Args:
      workload: What is run.
      num_rounds: Most rounds that will be run.
      dataset: The workload's data, where they have been generated already.
      **options: Fields of `RoundOptions` that override the workload's.
    """
    return build(
        dataset or generate(workload),
        make_task(workload, make_model(workload)),
        algorithms.fedavg(workload.client_lr),
        round_options(workload, num_rounds, **options),
    )


def round_options(workload: Workload, num_rounds: int, **options: Any) -> RoundOptions:
    """Returns the options of a workload's rounds; see `make_federation`."""
    return RoundOptions(
        num_rounds=num_rounds,
        clients_per_round=workload.cohort,
        batch_size=workload.batch_size,
        **{"calibrate": True, **workload.options, **options},
    )


def round_figures(
    federation: Federation, seconds: list[float], facts: list[HostPlan]
) -> dict[str, Any]:
    """Returns the figures of timed rounds, the first of which is reported by itself."""
    first, *timed = seconds
    cohort = statistics.median(planned.num_jobs for planned in facts[1:])
    median = statistics.median(timed)
    rates = [planned.rows_real / second for planned, second in zip(facts[1:], timed, strict=True)]
    real, computed = (
        sum(getattr(planned, kind) for planned in facts[1:])
        for kind in ("rows_real", "rows_computed")
    )
    return {
        "rounds": len(timed),
        "seconds_median": median,
        "seconds_min": min(timed),
        "seconds_max": max(timed),
        "plan_seconds": statistics.median(planned.seconds for planned in facts[1:]),
        "first_round_seconds": first,
        "calibration_seconds": federation.calibration_seconds,
        "clients_per_second": cohort / median,
        "examples_per_second": statistics.median(rates),
        "utilization": real / computed,
        "rounds_per_dispatch": federation.rounds_per_dispatch,
        "execution": federation.execution.as_plain(),
    }


def with_share_of_peak(figures: dict[str, Any], peak_flops: float) -> dict[str, Any]:
    """Adds what a workload achieves of the machine's matrix peak, in operations a second."""
    achieved = figures["flops_per_example"] * figures["examples_per_second"]
    shares = {"flops_per_second": achieved, "peak_flops": peak_flops}
    return figures | shares | {"share_of_peak": achieved / peak_flops}
