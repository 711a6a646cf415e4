"""Times options of XLA and kernels, on and off; they may change times, never results."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from fljax.benchmarks import processes
from fljax.benchmarks.gpu.changes import Sketch, farthest_leaf
from fljax.benchmarks.gpu.records import Context, Table

# Over a dozen rounds of `cases.py`, TF32 instead of float32 is a difference of 2 %, and TF32 in
# another order a smaller one; the last round is a tenth of the change, or more.
_ROUNDING = 0.03


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
        "Milliseconds a round, every variant in a process of its own. The change of each leaf of "
        f"the model over all rounds must be the first variant's, to {_ROUNDING:.0%} of its norm.",
    ]
    device: list[str] = []
    rows: list[list[str]] = []
    results: dict[str, Any] = {}
    expected: dict[str, Sketch] = {}
    wrong: list[str] = []
    for name, variant in VARIANTS.items():
        found = _run(context, variant, end - time.monotonic())
        results[name] = found
        if not device:
            # the processes say it: this one leaves the device's memory to them
            device = [figures["device"] for figures in found.values() if "device" in figures][:1]
        row = [name]
        for case in cases:
            figures = found[case]
            if case not in expected and "change" in figures:
                expected[case] = figures["change"]
                if len(results) > 1:
                    notes = [*notes, f'{case} is held against "{name}", the first that ran.']
            row.append(_cell(figures, expected.get(case, {})))
            if row[-1].startswith("**"):
                wrong.append(f"{name}, {case}")
        rows.append(row)
        problem = f"another result: {', '.join(wrong)}" if wrong else None
        yield Table(
            "Options of XLA, and kernels",
            [*notes, *device],
            ["options", *cases],
            rows,
            results,
            problem,
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


def _cell(figures: dict[str, Any], expected: Sketch) -> str:
    if "error" in figures:
        return f"*not measured*: {figures['error'][:120]}"
    text = f"{figures['milliseconds']:.2f}"
    leaf, share = farthest_leaf(figures["change"], expected)
    return text if share <= _ROUNDING else f"**{text}, {leaf}: {share:.2%} of its change off**"
