"""Times options of XLA and kernels, on and off; they may change times, never results."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from fljax.benchmarks import processes
from fljax.benchmarks.gpu.records import Context, Table

# after a dozen rounds, products in TF32 that are added in another order
_ROUNDING = 1e-3


class Variant(NamedTuple):
    """Options: what XLA_FLAGS holds, and arguments of `cases.py`."""

    flags: str = ""
    arguments: tuple[str, ...] = ()


VARIANTS = {
    "as it is": Variant(),
    "convolutions as kernels": Variant(arguments=("--form=pallas",)),
    "and updates of dense layers": Variant(arguments=("--form=pallas", "--fused_updates")),
    "without fljax's options": Variant(arguments=("--plain",)),
    "copies in loops by regions": Variant("--xla_gpu_copy_insertion_use_region_analysis=true"),
    "deterministic operations": Variant("--xla_gpu_deterministic_ops=true"),
    "no products by Triton": Variant("--xla_gpu_enable_triton_gemm=false"),
    "no autotuning": Variant("--xla_gpu_autotune_level=0"),
}


def flags(context: Context) -> Iterator[Table]:
    """Times rounds with options of XLA and kernels on and off, and compares the final models."""
    cases = context.size.flag_cases
    end = time.monotonic() + context.seconds
    notes = [
        "Milliseconds a round, every variant in a process of its own. The models after all rounds "
        f"must agree with the first variant's to {_ROUNDING:g}, by the sum of absolute values.",
    ]
    rows: list[list[str]] = []
    results: dict[str, Any] = {}
    expected: dict[str, float | None] = {}
    wrong: list[str] = []
    for name, variant in VARIANTS.items():
        found = _run(context, variant, end - time.monotonic())
        results[name] = found
        # the processes say it: this one leaves the device's memory to them
        said = [figures["device"] for figures in found.values() if "device" in figures]
        notes = notes if len(notes) > 1 else notes + said[:1]
        row = [name]
        for case in cases:
            figures = found[case]
            row.append(_cell(figures, expected.setdefault(case, figures.get("checksum"))))
            if row[-1].startswith("**"):
                wrong.append(f"{name}, {case}")
        rows.append(row)
        problem = f"another result: {', '.join(wrong)}" if wrong else None
        yield Table(
            "Options of XLA, and kernels", notes, ["options", *cases], rows, results, problem
        )


def _run(context: Context, variant: Variant, seconds: float) -> dict[str, Any]:
    """Returns {case: figures} of a variant; of a case that did not run, {"error": ...}."""
    rounds = f"--rounds={2 * context.size.timed_rounds}"
    command = [sys.executable, "-m", "fljax.benchmarks.gpu.cases", *context.size.flag_cases, rounds]
    given = f"{os.environ.get('XLA_FLAGS', '')} {variant.flags}".strip()
    done = processes.run([*command, *variant.arguments], seconds, environment={"XLA_FLAGS": given})
    lines = [json.loads(line) for line in done.output.splitlines() if line.startswith("{")]
    found = {line["case"]: line for line in lines}
    last = done.errors.strip().splitlines()[-1:] if done.problem else []
    problem = {"error": ": ".join([done.problem or "not run", *last])}
    return {case: found.get(case, problem) for case in context.size.flag_cases}


def _cell(figures: dict[str, Any], expected: float | None) -> str:
    if "error" in figures:
        return f"*not measured*: {figures['error'][:120]}"
    text, checksum = f"{figures['milliseconds']:.2f}", figures["checksum"]
    if expected is not None and not abs(checksum - expected) <= _ROUNDING * abs(expected):
        return f"**{text}, checksum {checksum:.8g} instead of {expected:.8g}**"
    return text
