"""Times a round against the size of the model, of the cohort, and the number of lanes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from fljax.benchmarks import measure
from fljax.benchmarks.gpu.common import (
    FIRST_ROUND_SECONDS,
    SPEED,
    at_precision,
    clients_of_50,
    device,
    peak,
    speed,
    speed_cells,
)
from fljax.benchmarks.gpu.kept_data import kept
from fljax.benchmarks.gpu.records import Bar, Context, Table
from fljax.benchmarks.workloads import WORKLOADS, generate

# bars of one card
_SOFTMAX_MS, _COHORT_TFLOPS = 3.0, 100.0


def softmax(context: Context) -> Iterator[Table]:
    """Measures a round of softmax regression with 1,000 clients: launches and exchanges alone."""
    size = context.size
    cohort = size.small_cohort
    workload = dataclasses.replace(WORKLOADS["softmax_1000"], population=cohort, cohort=cohort)
    dataset = kept(context.workdir, "softmax", lambda: generate(workload))
    title, rows, results, bars = f"Softmax regression, cohort {cohort:,}", [], {}, []
    columns = [
        "precision",
        "ms a round",
        "least",
        "planning ms",
        "first round s",
        "lanes",
        "exchange",
    ]
    for precision in size.precisions:
        with at_precision(precision):
            found = measure.run(
                title, workload, rounds=4 * size.timed_rounds, dataset=dataset,
                calibrate=size.calibrate,
            )  # fmt: skip
        results[precision] = found
        layout = found["execution"]
        rows.append(
            [
                precision,
                f"{1e3 * found['seconds_median']:.2f}",
                f"{1e3 * found['seconds_min']:.2f}",
                f"{1e3 * found['plan_seconds']:.2f}",
                f"{found['first_round_seconds']:.1f}",
                str(layout["lanes"]),
                str(layout["exchange_size"]),
            ]
        )
        if not bars:
            milliseconds = 1e3 * found["seconds_median"]
            bars = [Bar(f"{title}, a round", milliseconds, _SOFTMAX_MS, "ms")]
            if context.is_cold:
                bars.append(
                    Bar(
                        f"{title}, first round",
                        found["first_round_seconds"],
                        FIRST_ROUND_SECONDS,
                        "s",
                    )
                )
        yield Table(title, [device()], columns, rows, results, bars=bars)


def cohorts(context: Context) -> Iterator[Table]:
    """Measures clients a second and the share of the peak, cohort by cohort."""
    size = context.size
    population = max(size.cohorts)
    dataset = _clients_of_50(context, population)
    rows, results, bars = [], [], []
    notes = ["Clients of 50 examples, batch 10, CIFAR-10's CNN, synthetic data.", device()]
    for precision in size.precisions:
        attainable = peak(precision, size)
        for cohort in size.cohorts:
            workload = clients_of_50(size, cohort, population)
            figures = speed(workload, precision, size, attainable, dataset)
            results.append({"precision": precision, "cohort": cohort, **figures})
            rows.append([precision, f"{cohort:,}", *speed_cells(figures)])
            if not bars:
                reached = figures["flops_per_second"] / 1e12
                what = f"CIFAR-10's CNN, cohort {cohort:,}"
                bars = [Bar(what, reached, _COHORT_TFLOPS, "TFLOP/s", at_least=True)]
            columns = ["precision", "cohort", *SPEED]
            yield Table("Cohort size", notes, columns, rows, results, bars=bars)


def lanes(context: Context) -> Iterator[Table]:
    """Measures a round for several numbers of lanes, and for the number that fljax chooses."""
    size = context.size
    dataset = _clients_of_50(context, max(size.cohorts))
    attainable = peak("float32", size)
    notes = [f"Cohort {size.lanes_cohort:,} of clients of 50 examples, float32.", device()]
    rows, results = [], []
    for count in (0, *size.lanes):
        workload = clients_of_50(size, size.lanes_cohort, max(size.cohorts))
        figures = speed(workload, "float32", size, attainable, dataset, lanes=count)
        results.append({"asked": count, **figures})
        rows.append(["chosen" if not count else str(count), *speed_cells(figures)])
        yield Table("Lanes", notes, ["lanes asked for", *SPEED], rows, results)


def _clients_of_50(context: Context, population: int):
    """Returns the data of `clients_of_50`, the same for every cohort."""
    workload = clients_of_50(context.size, 1, population)
    return kept(context.workdir, f"clients_of_50_{population}", lambda: generate(workload))
