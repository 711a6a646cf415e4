"""Writes results of workloads as Markdown: one file's table, and two files side by side."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Result = Mapping[str, Any]


def table(results: Sequence[Result]) -> str:
    """Returns the results as a Markdown table, with a line on the machine before it.

    A result with an "error" becomes a row that says so.
    """
    lines = [
        "| workload | s/round median | min | max | plan s | first round s | compile s "
        "| calibration s | clients/s | examples/s | utilization | peak MB | GFLOP/s | of peak |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    measured = [result for result in results if "error" not in result]
    if measured:
        lines = [describe(measured[0]), "", *lines]
    return "\n".join([*lines, *map(_row, results)])


def describe(result: Result) -> str:
    """Returns what the figures depend on besides the code, as one sentence."""
    versions = ", ".join(f"{name} {number}" for name, number in result["versions"].items())
    return (
        f"{result['processor']}, {result['cores']} cores; {result['devices']}; matrix peak "
        f"{result['peak_flops'] / 1e9:,.0f} GFLOP/s; float32, matmul precision "
        f"{result['matmul_precision']}; {versions}; seed {result['seed']}; {result['date']}."
    )


def _row(result: Result) -> str:
    if "error" in result:
        return f"| {result['title']} | *not measured*: {result['error']} |" + " |" * 12
    return (
        f"| {result['title']} | {result['seconds_median']:.4f} | {result['seconds_min']:.4f} "
        f"| {result['seconds_max']:.4f} | {result['plan_seconds']:.4f} "
        f"| {result['first_round_seconds']:.2f} "
        f"| {result['compile_seconds']:.2f} | {result['calibration_seconds']:.2f} "
        f"| {result['clients_per_second']:,.0f} | {result['examples_per_second']:,.0f} "
        f"| {result['utilization']:.0%} | {result['peak_memory_bytes'] / 1e6:,.0f} "
        f"| {result['flops_per_second'] / 1e9:,.1f} | {result['share_of_peak']:.0%} |"
    )


def compare(before: str | Path, after: str | Path) -> str:
    """Returns a Markdown table of the ratios between two files of results.

    What the machines or versions differ in is said first; workloads that only one file has get a
    row without a ratio.
    """
    old, new = (
        {
            result["workload"]: result
            for result in json.loads(Path(path).read_text())
            if "error" not in result
        }
        for path in (before, after)
    )
    lines = [
        f"Before: {before}, after: {after}.",
        *_differences(old, new),
        "",
        "| workload | s/round before | after | before / after | peak MB before | after |",
        "|---|---|---|---|---|---|",
    ]
    for name in {**old, **new}:
        first, second = old.get(name), new.get(name)
        ratio = ""
        if first and second:
            ratio = f"{first['seconds_median'] / second['seconds_median']:.2f}"
        lines.append(
            f"| {(second or first)['title']} | {_seconds(first)} | {_seconds(second)} | {ratio} "
            f"| {_megabytes(first)} | {_megabytes(second)} |"
        )
    return "\n".join(lines)


def _differences(old: Mapping[str, Result], new: Mapping[str, Result]) -> list[str]:
    """Returns warnings about everything but the code that differs."""
    if not old or not new:
        return []
    first, second = next(iter(old.values())), next(iter(new.values()))
    facts = ("processor", "cores", "devices", "matmul_precision", "seed")
    pairs = {name: (first.get(name), second.get(name)) for name in facts}
    pairs |= {
        name: (first["versions"].get(name), second["versions"].get(name))
        for name in {**first["versions"], **second["versions"]}
    }
    return [
        f"Warning: {name} differs, {before} before and {after} after."
        for name, (before, after) in pairs.items()
        if before != after
    ]


def _seconds(result: Result | None) -> str:
    return "*not measured*" if result is None else f"{result['seconds_median']:.4f}"


def _megabytes(result: Result | None) -> str:
    return "" if result is None else f"{result['peak_memory_bytes'] / 1e6:,.0f}"
