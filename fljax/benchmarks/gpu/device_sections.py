"""Reports what the device attains, where the time goes, and whether the kernels are right."""

from __future__ import annotations

import time
from collections.abc import Iterator

import jax

from fljax.benchmarks import measure, profiles, protocols
from fljax.benchmarks.gpu.common import at_precision, clients_of_50, device, peak
from fljax.benchmarks.gpu.kept_data import kept
from fljax.benchmarks.gpu.records import Context, Table
from fljax.benchmarks.kernels import errors, layers
from fljax.benchmarks.workloads import generate
from fljax_kernels.lstm import FORMS as LSTM_FORMS


def peaks(context: Context) -> Iterator[Table]:
    """Measures the matrix peak in both precisions."""
    rates = {name: peak(name, context.size) for name in protocols.PRECISIONS}
    rows = [[name, f"{rate / 1e12:,.2f}"] for name, rate in rates.items()]
    yield Table("Matrix peak", [device()], ["precision", "TFLOP/s"], rows, rates)


def profile(context: Context) -> Iterator[Table]:
    """Profiles rounds with one lane (before) and with the lanes that fljax chooses (after)."""
    size = context.size
    workload = clients_of_50(size, size.cohort, size.population)
    dataset = kept(context.workdir, f"clients_of_50_{size.population}", lambda: generate(workload))
    rows, results = [], {}
    notes = [
        f"{workload.title}, float32; milliseconds of a round under the profiler. What a whole "
        "round takes beyond its operations is launching and waiting. Operations of several devices "
        "are added up; on a CPU, operations that contain others are counted with them.",
        device(),
    ]
    columns = ["layout", "operation", "ms a round", "calls a round", "share"]
    for name, count in {"one lane": 1, "chosen": 0}.items():
        directory = context.workdir / "traces" / name.replace(" ", "_")
        with at_precision("float32"):
            federation = measure.make_federation(
                workload, size.timed_rounds + 2, dataset, lanes=count, calibrate=size.calibrate
            )
            plans = federation.plans(0, size.timed_rounds + 2)
            for _ in range(2):
                federation.step(*next(plans))
            jax.block_until_ready(federation.state)
            begin = time.perf_counter()
            with jax.profiler.trace(str(directory)):
                for plan, facts in plans:
                    federation.step(plan, facts)
                jax.block_until_ready(federation.state)
                seconds = time.perf_counter() - begin
        found = profiles.read(directory)
        results[name] = {"seconds": seconds, **found._asdict()}
        head = f"{name}: {federation.execution.lanes} lane(s)"
        per_round = 1e3 / size.timed_rounds
        rows.append([head, "whole round", f"{seconds * per_round:.2f}", "", ""])
        rows.append([head, "all operations", f"{found.busy_seconds * per_round:.2f}", "", "100%"])
        rows += [
            [
                head,
                f"`{operation}`",
                f"{spent * per_round:.2f}",
                f"{number / size.timed_rounds:,.0f}",
                f"{spent / found.busy_seconds:.0%}",
            ]
            for operation, spent, number in found.operations
        ]
        yield Table("Profile, before and after", notes, columns, rows, results)


def kernels(context: Context) -> Iterator[Table]:
    """Checks the kernels on this device against NumPy in float64."""
    rows, results = [], []
    batch = 20 if context.size.real_data else 2
    forms = ["auto", *(form for form in layers.forms() if form == "pallas")]
    for precision in protocols.PRECISIONS:
        with at_precision(precision):
            checks = [
                check
                for form in forms
                for layer in errors.LAYERS
                for check in errors.check_convolution(layer, precision, batch, form=form)
            ]
            checks += [errors.check_pooling(), *errors.check_fused(batch)]
            for form in layers.forms(LSTM_FORMS):
                checks += errors.check_recurrence(precision, form)
        for check in checks:
            results.append({"precision": precision, **check._asdict()})
            rows.append([precision, check.kernel, f"{check.error:.1e}", f"{check.bound:.0e}"])
    wrong = [result["kernel"] for result in results if not result["error"] <= result["bound"]]
    yield Table(
        "Kernels against float64",
        ["Largest error, as a share of the largest value of the result.", device()],
        ["precision", "kernel", "error", "bound"],
        rows,
        results,
        problem=f"beyond the bound: {', '.join(wrong)}" if wrong else None,
    )
