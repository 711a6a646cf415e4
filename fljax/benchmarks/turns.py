"""Times rounds of several variants of one workload by turns, and what they add to the first."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax

from fljax.training.federation import Federation

# Rounds before the timed ones: they compile and, where clients keep state, make room for it.
WARM_UP = 2


class Cost(NamedTuple):
    """The rounds of one variant.

    Attributes:
      label: Its name.
      seconds: Median of a round.
      ratio: Median over turns of a round's seconds to those of the first variant's beside it.
      lowest, highest: Of those ratios.
      bytes: What a client sends in a round, in the mean.
    """

    label: str
    seconds: float
    ratio: float
    lowest: float
    highest: float
    bytes: float


def costs_by_turns(
    federations: Mapping[str, Federation],
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
) -> list[Cost]:
    """Times rounds of federations by turns.

    Args:
      federations: {label: federation of at least rounds + WARM_UP rounds}, each of which runs the
        same rounds.
      rounds: Turns that count.
      clock: () -> seconds; `time.process_time` counts those of all cores, whoever else uses them.
    """
    plans = [federation.plans(0, rounds + WARM_UP) for federation in federations.values()]
    seconds, sent = [], []
    for _ in range(rounds + WARM_UP):
        turn = [
            _round(federation, own, clock)
            for federation, own in zip(federations.values(), plans, strict=True)
        ]
        seconds.append([taken for taken, _ in turn])
        sent.append([bytes_sent for _, bytes_sent in turn])
    by_variant = list(zip(*seconds[WARM_UP:], strict=True))
    ratios = [[a / b for a, b in zip(own, by_variant[0], strict=True)] for own in by_variant]
    return [
        Cost(label, statistics.median(own), statistics.median(ratio), min(ratio), max(ratio), size)
        for label, own, ratio, size in zip(federations, by_variant, ratios, sent[-1], strict=True)
    ]


def _round(federation: Federation, plans, clock: Callable[[], float]) -> tuple[float, float]:
    """Runs one round; returns its seconds and the bytes that a client sent."""
    plan, facts = next(plans)
    begin = clock()
    stats = federation.step(plan, facts)
    jax.block_until_ready((federation.state, stats))
    seconds = clock() - begin
    bits = jax.device_get(stats[-1]["uplink_bits"]).astype("int64")
    return seconds, bits.sum() / 8 / max(1, facts.num_jobs)


def table(found: Sequence[Cost], heading: str, unit: str = "s") -> str:
    """Returns the costs as a Markdown table.

    Args:
      found: The costs.
      heading: Of the column of labels.
      unit: Of the seconds.
    """
    lines = [
        f"| {heading} | bytes a client | round, {unit} | added (range) |",
        "|---|---:|---:|---:|",
    ]
    for cost in found:
        added = f"{cost.ratio - 1:+.1%} ({cost.lowest - 1:+.1%} to {cost.highest - 1:+.1%})"
        lines.append(f"| `{cost.label}` | {cost.bytes:,.0f} | {cost.seconds:.3f} | {added} |")
    return "\n".join(lines)
