"""Helps several sections: precision, peaks, resized workloads, cells of tables."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Any

import jax

from fljax.benchmarks import measure
from fljax.benchmarks.gpu.records import Size
from fljax.benchmarks.machine import machine, matrix_peak
from fljax.benchmarks.protocols import PRECISIONS
from fljax.benchmarks.workloads import WORKLOADS, Workload, equal
from fljax.data.dataset import FederatedDataset
from fljax.engine.devices.execution import ExecutionPlan

# until the first round has run, where nothing has been compiled before
FIRST_ROUND_SECONDS = 15.0
SPEED = ("s/round", "clients/s", "examples/s", "TFLOP/s", "of peak", "utilization", "lanes")


def device() -> str:
    """Returns a sentence on the device and the versions."""
    facts = machine()
    versions = ", ".join(f"{name} {number}" for name, number in facts["versions"].items())
    return (
        f"{facts['devices']}; {facts['processor']}, {facts['cores']} cores; {versions}; "
        f"{facts['date']}."
    )


def at_precision(precision: str) -> contextlib.AbstractContextManager:
    """Returns a context in which float32 matrix products have a precision of `PRECISIONS`."""
    return jax.default_matmul_precision(PRECISIONS[precision])


def peak(precision: str, size: Size) -> float:
    """Measures the matrix peak in a precision, in operations a second."""
    with at_precision(precision):
        return matrix_peak(size.peak_sizes, operations=size.peak_operations)


def clients_of_50(size: Size, cohort: int, population: int) -> Workload:
    """Returns CIFAR-10's CNN on clients of 50 examples, drawn from a pool of 50,000."""
    return dataclasses.replace(
        WORKLOADS["cifar10_cnn_50"],
        title=f"CIFAR-10 CNN, cohort {cohort:,} x 50 rows",
        shape=size.shapes["color"],
        population=population,
        cohort=cohort,
        sizes=equal(50),
        pool=min(50_000, 50 * population),
    )


def speed(
    workload: Workload,
    precision: str,
    size: Size,
    peak_flops: float,
    dataset: FederatedDataset | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Measures a workload in a precision, on its data where there are some already."""
    options = {"calibrate": size.calibrate} | options
    with at_precision(precision):
        figures = measure.run(
            workload.title, workload, rounds=size.timed_rounds, dataset=dataset, **options
        )
    return measure.with_share_of_peak(figures, peak_flops)


def speed_cells(figures: dict[str, Any]) -> list[str]:
    """Returns the cells below `SPEED`."""
    return [
        f"{figures['seconds_median']:.4f}",
        f"{figures['clients_per_second']:,.0f}",
        f"{figures['examples_per_second']:,.0f}",
        f"{figures['flops_per_second'] / 1e12:,.1f}",
        f"{figures['share_of_peak']:.1%}",
        f"{figures['utilization']:.0%}",
        str(figures["execution"]["lanes"]),
    ]


def exchanging(layout: ExecutionPlan, size: int) -> ExecutionPlan:
    """Returns a layout in which so many lanes exchange at once; 0 leaves it as it is.

    Several that do are a wave.
    """
    if not size:
        return layout
    return layout._replace(exchange_size=size, wave=layout.wave if size == 1 else size)
