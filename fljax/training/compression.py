"""Makes a pipeline of the texts that name compressors, for the clients and cohorts of a run."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from fljax.compression import fitting, names
from fljax.compression.names import Names
from fljax.core import parts
from fljax.core.algorithm import AlgorithmSpec
from fljax.core.task import Task
from fljax.core.transforms import Pipeline, PipelineSpec, as_configured, hparams_of, pipeline_at
from fljax.data.dataset import FederatedDataset
from fljax.engine.plan.batching import takes_part, works_of
from fljax.training.initialization import initial_shapes
from fljax.training.local_work import local_work, schedules_of
from fljax.training.options import RoundOptions
from fljax.training.privacy_checks import weighting_of


def compression_of(given: Mapping[str, Any]) -> Names:
    """Returns what texts name of compression, once they are known to be right.

    Args:
      given: The keys that are set.

    Raises:
      ValueError: For texts that no model could be run with.

    Example:
      >>> compression_of({"uplink": "top_k(0.01), qsgd(8)"}).uplink_memory
      'none'
    """
    chosen = Names(**given)
    if chosen != Names():
        names.check(chosen)
    return chosen


def with_compression(
    dataset: FederatedDataset, task: Task, spec: AlgorithmSpec, options: RoundOptions, chosen: Names
) -> RoundOptions:
    """Puts the links that texts name into the pipeline of the options.

    Args:
      dataset, task, spec, options: As `fljax.training.federation.build` takes them.
      chosen: The texts.

    Raises:
      ValueError: If they do not fit the run, or the pipeline has links of its own in their place.
    """
    if chosen == Names():
        return options
    weighting = "uniform"
    if chosen.uplink_memory != "none":
        weighting = weighting_of(dataset, task, spec, options)
    made = make_pipeline(chosen, dataset, task, spec, options, weighting)
    given, links = options.pipeline, {}
    for side in ("uplink", "downlink"):
        if getattr(made, side):
            if getattr(as_configured(given), side):
                raise ValueError(
                    f"{side} = {getattr(chosen, side)!r}, and the pipeline has links of its own "
                    f"there. Leave one of them out, or put both into Pipeline({side}=...)."
                )
            links[side] = getattr(made, side)
    numbers = hparams_of(given)
    joined = lambda hparams: pipeline_at(given, hparams)._replace(**links)  # noqa: E731
    pipeline = PipelineSpec(joined, numbers) if numbers else joined({})
    return dataclasses.replace(options, pipeline=pipeline)


def make_pipeline(
    chosen: Names,
    dataset: FederatedDataset,
    task: Task,
    spec: AlgorithmSpec,
    options: RoundOptions,
    weighting: str,
    traced: Collection[str] = (),
) -> Pipeline | PipelineSpec:
    """Returns what texts name of compression, and warns of what saves nothing or grows.

    Args:
      chosen: The texts.
      dataset, task, spec, options: As `fljax.training.federation.build` takes them.
      weighting: What the weights of contributions depend on.
      traced: Those of "uplink" and "downlink" whose numbers the program takes as arguments.

    Raises:
      ValueError: If they do not fit the run.
    """
    params = initial_shapes(task)[0]
    fitting.check_cohort(
        chosen,
        num_clients=dataset.members,
        clients_per_round=options.clients_per_round,
        sampler=parts.name_of(options.sampler) if isinstance(options.sampler, str) else "",
        weighting=weighting,
    )
    clients = num_participants(dataset, task, spec, options)
    pipeline = names.pipeline(chosen, params, clients, options.seed, traced)
    fitting.warn_of_growth(chosen, params)
    fitting.warn_of_size(chosen, params)
    return pipeline


def num_participants(
    dataset: FederatedDataset, task: Task, spec: AlgorithmSpec, options: RoundOptions
) -> int:
    """Returns how many clients ever take part: those whose rows are enough for a step.

    Args:
      dataset, task, spec, options: As `fljax.training.federation.build` takes them.
    """
    sizes = dataset.train.partition.sizes
    works = works_of(local_work(sizes, options), schedules_of(task, spec))
    return int(np.count_nonzero(takes_part(sizes, works)))
