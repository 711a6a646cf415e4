"""Writes the tables of a comparison: speed, memory and final losses."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping

from fljax.benchmarks.comparison import OURS, Line, key_of, problem

# relative difference of final losses after which the work was not the same
TOLERANCE = 1e-3


def table(lines: Iterable[Line], memory_peer: str = "fedjax") -> str:
    """Returns one Markdown table a workload, and what it says of fljax.

    Args:
      lines: Results.
      memory_peer: The runner to whose memory fljax's is compared.
    """
    latest = {key_of(line): line for line in lines}
    workloads = dict.fromkeys(line["workload"] for line in latest.values())
    parts = []
    for workload in workloads:
        results: dict[str, dict[int, Line]] = {}
        for (name, owner, repetition), line in latest.items():
            if owner == workload:
                results.setdefault(name, {})[repetition] = line
        parts.append(f"### {workload}\n\n{_workload_table(results, memory_peer)}")
    return "\n\n".join(parts)


def _workload_table(results: Mapping[str, Mapping[int, Line]], memory_peer: str) -> str:
    rows, failures = [], []
    good: dict[str, dict[int, Line]] = {}
    for name, by_repetition in results.items():
        wrong = {repetition: problem(line) for repetition, line in by_repetition.items()}
        good[name] = {r: line for r, line in by_repetition.items() if wrong[r] is None}
        failures += [
            f"{name}, repetition {repetition}, failed: {reason.strip().splitlines()[0]}"
            for repetition, reason in wrong.items()
            if reason is not None
        ]
    good = {name: lines for name, lines in good.items() if lines}
    losses = {name: _loss(lines) for name, lines in good.items()}
    for name, lines in sorted(good.items(), key=lambda item: _median_seconds(item[1])):
        of_repetitions = " ".join(f"{line['median_s_per_round']:.4g}" for line in lines.values())
        difference = ""
        if OURS in losses:
            difference = f"{_difference(losses[name], losses[OURS]):.1e}"
        rows.append(
            f"| {name} | {_median_seconds(lines):.4g} | {of_repetitions} "
            f"| {_times(good.get(OURS), lines)} | {_median(lines.values(), 'first_round_s'):.2f} "
            f"| {_median(lines.values(), 'examples_per_s'):,.0f} "
            f"| {_median(lines.values(), 'peak_rss_mb'):,.0f} | {losses[name]:.6g} "
            f"| {difference} |"
        )
    head = (
        f"| runner | s/round | of each repetition | x {OURS} | first round s | examples/s "
        f"| peak MB | final loss | relative difference |\n|---|---|---|---|---|---|---|---|---|"
    )
    said = "\n".join([*_conclusions(good, memory_peer), *failures])
    return "\n".join([head, *rows]) + (f"\n\n{said}" if said else "")


def _conclusions(good: Mapping[str, Mapping[int, Line]], memory_peer: str) -> list[str]:
    """Returns what the results of a workload say of fljax: speed, memory, same work."""
    ours = good.get(OURS, {})
    ratios, fastest = [], []
    for repetition, line in ours.items():
        others = {
            name: lines[repetition]["median_s_per_round"]
            for name, lines in good.items()
            if name != OURS and repetition in lines
        }
        if others:
            best = min(others, key=others.get)
            fastest.append(best)
            ratios.append(others[best] / line["median_s_per_round"])
    said = []
    if ratios:
        said.append(
            f"Fastest other runner of each repetition ({', '.join(dict.fromkeys(fastest))}) / "
            f"{OURS}: median {statistics.median(ratios):.2f} "
            f"({min(ratios):.2f} to {max(ratios):.2f}, {len(ratios)} repetitions)."
        )
    if ours and memory_peer in good:
        share = _median(ours.values(), "peak_rss_mb") / _median(
            good[memory_peer].values(), "peak_rss_mb"
        )
        said.append(f"Peak memory of {OURS} / {memory_peer}: {share:.2f}.")
    far = [
        name
        for name, lines in good.items()
        if ours and not _difference(_loss(lines), _loss(ours)) <= TOLERANCE
    ]
    if far:
        said.append(
            f"Final losses further than {TOLERANCE:g} (relative) from {OURS}'s: {', '.join(far)}. "
            "Where the model has no dropout, they did other work."
        )
    return said


def _difference(loss: float, of_ours: float) -> float:
    return abs(loss - of_ours) / max(abs(of_ours), 1e-30)


def _loss(lines: Mapping[int, Line]) -> float:
    return _median(lines.values(), "final_train_loss")


def _times(ours: Mapping[int, Line] | None, lines: Mapping[int, Line]) -> str:
    """Returns how many times as long as fljax a runner takes: the median over repetitions."""
    ratios = [
        line["median_s_per_round"] / ours[repetition]["median_s_per_round"]
        for repetition, line in lines.items()
        if ours and repetition in ours
    ]
    return f"{statistics.median(ratios):.2f}" if ratios else ""


def _median_seconds(lines: Mapping[int, Line]) -> float:
    return _median(lines.values(), "median_s_per_round")


def _median(lines: Iterable[Line], key: str) -> float:
    values = [line[key] for line in lines if line.get(key) is not None]
    return statistics.median(values) if values else float("nan")
