"""Times rounds with and without compression, by turns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax

from fljax.benchmarks import turns
from fljax.benchmarks.measure import make_federation
from fljax.benchmarks.workloads import Workload, generate, make_model, make_task
from fljax.compression.names import Names, pipeline
from fljax.core.transforms import Pipeline, PipelineSpec

PyTree = Any


def links_of(variant: str, params: PyTree, num_clients: int) -> Pipeline | PipelineSpec:
    """Returns the links of "CODE" or "CODE + MEMORY"; parameters may be shapes."""
    code, _, memory = (part.strip() for part in variant.partition(" + "))
    if code == "none":
        return Pipeline()
    return pipeline(Names(uplink=code, uplink_memory=memory or "none"), params, num_clients, 0)


def costs(workload: Workload, variants: Sequence[str], rounds: int) -> list[turns.Cost]:
    """Times rounds of several variants by turns, the uncompressed one first.

    Args:
      workload: What is trained.
      variants: "CODE", or "CODE + MEMORY", as in the configuration's `uplink`, `uplink_memory`.
      rounds: Turns that count.
    """
    dataset = generate(workload)
    shapes, _, _ = jax.eval_shape(make_task(workload, make_model(workload)).init, jax.random.key(0))
    federations = {
        variant: make_federation(
            workload,
            rounds + turns.WARM_UP,
            dataset,
            pipeline=links_of(variant, shapes, workload.population),
            calibrate=False,
            rounds_per_dispatch=1,
        )
        for variant in ("none", *variants)
    }
    return turns.costs_by_turns(federations, rounds)


def table(found: Sequence[turns.Cost]) -> str:
    """Returns the costs as a Markdown table."""
    return turns.table(found, "uplink")
