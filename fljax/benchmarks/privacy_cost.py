"""Times rounds with and without privacy, by turns, in seconds of all cores."""

from __future__ import annotations

import time
from collections.abc import Sequence

from fljax import algorithms
from fljax.benchmarks import turns
from fljax.benchmarks.measure import round_options
from fljax.benchmarks.workloads import Workload, generate, make_model, make_task
from fljax.training.federation import build
from fljax.training.privacy import with_privacy


def costs(workload: Workload, variants: Sequence[str], rounds: int) -> list[turns.Cost]:
    """Times rounds of several variants by turns, the one without privacy first.

    Cohorts are Poisson samples in all of them, and clients weigh alike.

    Args:
      workload: What is trained.
      variants: "PRIVACY", or "PRIVACY + SECURE_AGGREGATION", as in a configuration; "none" is
        nothing.
      rounds: Turns that count.
    """
    dataset, task = generate(workload), make_task(workload, make_model(workload))
    spec = algorithms.fedavg(workload.client_lr, weighting="uniform")

    def federation_of(variant: str):
        privacy, _, secure = (part.strip() for part in variant.partition(" + "))
        options = round_options(
            workload,
            rounds + turns.WARM_UP,
            sampler="poisson",
            privacy=None if privacy == "none" else privacy,
            secure_aggregation=secure or None,
            calibrate=False,
            rounds_per_dispatch=1,
        )
        return build(dataset, task, spec, with_privacy(dataset, task, spec, options))

    federations = {variant: federation_of(variant) for variant in ("none", *variants)}
    return turns.costs_by_turns(federations, rounds, time.process_time)


def table(found: Sequence[turns.Cost]) -> str:
    """Returns the costs as a Markdown table."""
    return turns.table(found, "privacy", "CPU s")
