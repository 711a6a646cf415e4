"""Times what an algorithm, aggregator, compressor or mechanism of privacy adds to a round."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax

from fljax import algorithms
from fljax.benchmarks import turns
from fljax.benchmarks.measure import round_options
from fljax.benchmarks.workloads import Workload, generate, make_model, make_task
from fljax.compression.names import Names, pipeline
from fljax.core.transforms import Pipeline, PipelineSpec
from fljax.robustness.names import make_aggregator
from fljax.training.federation import build
from fljax.training.options import RoundOptions
from fljax.training.privacy import with_privacy

PyTree = Any


class Subject(NamedTuple):
    """A part of a round, and the variants of it that are timed.

    Attributes:
      plain: The variant that all others are compared with.
      variants: Those that are timed unless others are named.
      options: (variant, shapes of the parameters, workload) -> options of rounds.
      weighting: Of FedAvg's clients; None where the variants are algorithms themselves.
    """

    plain: str
    variants: Sequence[str]
    options: Callable[[str, PyTree, Workload], dict[str, Any]]
    weighting: str | None = "examples"


def links_of(variant: str, params: PyTree, num_clients: int) -> Pipeline | PipelineSpec:
    """Returns the links of "CODE" or "CODE + MEMORY"; parameters may be shapes."""
    code, _, memory = (part.strip() for part in variant.partition(" + "))
    if code == "none":
        return Pipeline()
    return pipeline(Names(uplink=code, uplink_memory=memory or "none"), params, num_clients, 0)


def _compressed(variant: str, params: PyTree, workload: Workload) -> dict[str, Any]:
    return {"pipeline": links_of(variant, params, workload.population)}


def _private(variant: str, params: PyTree, workload: Workload) -> dict[str, Any]:
    """Returns the options of "PRIVACY", or "PRIVACY + SECURE_AGGREGATION"."""
    privacy, _, secure = (part.strip() for part in variant.partition(" + "))
    return {
        "sampler": "poisson",
        "privacy": None if privacy == "none" else privacy,
        "secure_aggregation": secure or None,
    }


def _robust(variant: str, params: PyTree, workload: Workload) -> dict[str, Any]:
    rule = make_aggregator(variant, {"num_clients": workload.population})
    return {"pipeline": Pipeline(aggregator=rule)}


def _timed(variant: str, params: PyTree, workload: Workload) -> dict[str, Any]:
    """Returns the options of a schedule on devices of log-normal speed; "none" has no clock."""
    return {} if variant == "none" else {"schedule": variant, "profiles": "lognormal(1.0)"}


# name of the subject -> what is varied; cohorts of private rounds are Poisson samples; clients
# weigh alike there and for aggregators, most of which count them alike
SUBJECTS: dict[str, Subject] = {
    "algorithm": Subject(
        "fedavg", ("scaffold", "fednova", "feddyn", "ditto"), lambda *_: {}, weighting=None
    ),
    "aggregator": Subject(
        "mean",
        (
            "median", "trimmed_mean(0.1)", "krum(f=10)", "rfa", "centered_clipping(1.0)",
            "bucketing(2), krum(f=10)",
        ),
        _robust,
        "uniform",
    ),
    "privacy": Subject(
        "none", ("gaussian(0.3, 1.0)", "adaptive_clipping(0.3, 1.0)"), _private, "uniform"
    ),
    "schedule": Subject(
        "none",
        ("wait_for_all", "over_selection(1.3)", "fedbuff(concurrency=200, max_staleness=20)"),
        _timed,
        "uniform",
    ),
    "uplink": Subject(
        "none", ("top_k(0.01)", "int8", "top_k(0.01) + error_feedback"), _compressed
    ),
}  # fmt: skip


def costs(
    workload: Workload, subject: str, variants: Sequence[str], rounds: int
) -> list[turns.Cost]:
    """Times rounds of several variants by turns, the plain one first, in seconds of all cores.

    Args:
      workload: What is trained.
      subject: One of `SUBJECTS`.
      variants: As a configuration has them; behind " + " the memory of a compressor, or secure
        aggregation.
      rounds: Turns that count.
    """
    varied = SUBJECTS[subject]
    dataset, task = generate(workload), make_task(workload, make_model(workload))
    shapes, _, _ = jax.eval_shape(task.init, jax.random.key(0))

    def federation_of(variant: str):
        spec = (
            algorithms.make(variant, client_lr=workload.client_lr)
            if varied.weighting is None
            else algorithms.fedavg(workload.client_lr, weighting=varied.weighting)
        )
        options: RoundOptions = round_options(
            workload,
            rounds + turns.WARM_UP,
            calibrate=False,
            rounds_per_dispatch=1,
            **varied.options(variant, shapes, workload),
        )
        return build(dataset, task, spec, with_privacy(dataset, task, spec, options))

    federations = {variant: federation_of(variant) for variant in (varied.plain, *variants)}
    return turns.costs_by_turns(federations, rounds, time.process_time)


def table(found: Sequence[turns.Cost], subject: str) -> str:
    """Returns the costs as a Markdown table."""
    return turns.table(found, subject, "CPU s")
