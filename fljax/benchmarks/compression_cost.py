"""Times rounds with and without compression, by turns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax

from fljax.benchmarks.measure import make_federation
from fljax.benchmarks.workloads import Workload, generate, make_model, make_task
from fljax.compression.names import Names, pipeline
from fljax.core.transforms import Pipeline, PipelineSpec

PyTree = Any


class Cost(NamedTuple):
    """The rounds of one variant.

    Attributes:
      label: The compressor and its memory.
      seconds: Median of a round.
      ratio: Median over turns of a round's seconds to those of the uncompressed round beside it.
      lowest, highest: Of those ratios.
      bytes: What a client sends in a round, in the mean.
    """

    label: str
    seconds: float
    ratio: float
    lowest: float
    highest: float
    bytes: float


def links_of(variant: str, params: PyTree, num_clients: int) -> Pipeline | PipelineSpec:
    """Returns the links of "CODE" or "CODE + MEMORY"; parameters may be shapes."""
    code, _, memory = (part.strip() for part in variant.partition(" + "))
    if code == "none":
        return Pipeline()
    return pipeline(Names(uplink=code, uplink_memory=memory or "none"), params, num_clients, 0)


def costs(workload: Workload, variants: Sequence[str], rounds: int) -> list[Cost]:
    """Times rounds of several variants by turns, the uncompressed one first.

    Args:
      workload: What is trained.
      variants: "CODE", or "CODE + MEMORY", as in the configuration's `uplink`, `uplink_memory`.
      rounds: Turns, after two that compile and, where clients keep state, make room for it.
    """
    dataset = generate(workload)
    shapes, _, _ = jax.eval_shape(make_task(workload, make_model(workload)).init, jax.random.key(0))
    federations, seconds, sent = [], [], []
    for variant in ("none", *variants):
        links = links_of(variant, shapes, workload.population)
        federation = make_federation(
            workload, rounds + 2, dataset, pipeline=links, calibrate=False, rounds_per_dispatch=1
        )
        federations.append(federation)
    plans = [federation.plans(0, rounds + 2) for federation in federations]
    for _ in range(rounds + 2):
        turn = [_round(federation, own) for federation, own in zip(federations, plans, strict=True)]
        seconds.append([taken for taken, _ in turn])
        sent.append([bytes_sent for _, bytes_sent in turn])
    by_variant = list(zip(*seconds[2:], strict=True))
    plain = by_variant[0]
    ratios = [[a / b for a, b in zip(own, plain, strict=True)] for own in by_variant]
    return [
        Cost(label, statistics.median(own), statistics.median(ratio), min(ratio), max(ratio), size)
        for label, own, ratio, size in zip(
            ("none", *variants), by_variant, ratios, sent[-1], strict=True
        )
    ]


def _round(federation, plans) -> tuple[float, float]:
    """Runs one round; returns its seconds and the bytes that a client sent."""
    plan, facts = next(plans)
    begin = time.perf_counter()
    stats = federation.step(plan, facts)
    jax.block_until_ready((federation.state, stats))
    seconds = time.perf_counter() - begin
    bits = jax.device_get(stats[-1]["uplink_bits"]).astype("int64")
    return seconds, bits.sum() / 8 / facts.num_jobs


def table(found: Sequence[Cost]) -> str:
    """Returns the costs as a Markdown table."""
    lines = ["| uplink | bytes a client | round, s | added (range) |", "|---|---:|---:|---:|"]
    for cost in found:
        added = f"{cost.ratio - 1:+.1%} ({cost.lowest - 1:+.1%} to {cost.highest - 1:+.1%})"
        lines.append(f"| `{cost.label}` | {cost.bytes:,.0f} | {cost.seconds:.3f} | {added} |")
    return "\n".join(lines)
