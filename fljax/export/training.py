"""Finds out how a model was trained: what a client does in a round, and whose model it is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax

from fljax.compression import names
from fljax.config import ConfigError, resolve
from fljax.config.dry_run import round_work
from fljax.config.experiment import compression_names, make_experiment
from fljax.config.prediction import config_of_run
from fljax.core.algorithm import Algorithm
from fljax.core.task import Task
from fljax.core.values import brief
from fljax.data.dataset import FederatedDataset
from fljax.data.examples import batch_spec
from fljax.recording import Run
from fljax.training.binding import bound
from fljax.training.edge_costs import RoundWork
from fljax.training.initialization import initial_shapes
from fljax.training.local_work import local_work, structure_of
from fljax.training.options import RoundOptions, split_options
from fljax.training.traffic import plain_forms

_ALL = "one model for all clients"


class Training(NamedTuple):
    """The way in which a model was trained.

    Attributes:
      scope: Whose model it is, in words.
      work: What a client does in a round; None where that is not known.
      unknown: Why it is not; else empty.
      links: Megabits a second of a client's uplink and downlink, where the run says them.
      xla_flops: XLA's own count of the operations of a step, each loop's body once; None where it
        has none.
    """

    scope: str
    work: RoundWork | None
    unknown: str
    links: tuple[float | None, float | None] = (None, None)
    xla_flops: float | None = None


def training_of(run: Run | str | Path) -> Training:
    """Returns how a run trained, of its configuration; its data are loaded for it.

    Args:
      run: What `simulate` or `load_run` returned, or the run's directory.
    """
    try:
        config = resolve(config_of_run(run))
        experiment = make_experiment(config)
    except (ConfigError, FileNotFoundError, ImportError, ValueError) as error:
        return Training(_ALL, None, brief(error))
    dataset, task, spec = experiment.dataset, experiment.task, experiment.algorithm
    options, run_options = split_options(experiment.options)
    params = initial_shapes(task)[0]
    update = names.update_size(compression_names(config), params, dataset.num_clients)
    return Training(
        whose_model(structure_of(task, spec)),
        round_work(dataset, task, spec, options, update),
        "",
        (run_options.uplink_mbps, run_options.downlink_mbps),
        step_flops_by_xla(task, dataset, options),
    )


def step_flops_by_xla(task: Task, dataset: FederatedDataset, options: RoundOptions) -> float | None:
    """Returns XLA's count of the operations of one local step's gradient; nothing is compiled.

    Args:
      task, dataset, options: As `simulate` takes them.
    """

    def gradient(params, frozen, model_state, batch, key):
        return bound(task, frozen, dataset).gradient(params, model_state, batch, key)

    width = local_work(dataset.train.partition.sizes, options).width
    batch = batch_spec(dataset.train.examples.spec, width)
    with plain_forms():
        lowered = jax.jit(gradient).lower(*initial_shapes(task), batch, jax.random.key(0))
    return (lowered.cost_analysis() or {}).get("flops")


def whose_model(algorithm: Algorithm) -> str:
    """Returns whose model the algorithm's global one is."""
    if algorithm.initial_models > 1:
        return (
            f"the largest of {algorithm.initial_models} clusters' models; the others are not here"
        )
    if algorithm.personalize is not None:
        return "the model that all clients share; their own models, made of it, are not here"
    return _ALL


def check_shared(about: Mapping[str, Any], directory: Any) -> None:
    """Raises ValueError for a model of an algorithm whose clients share none."""
    if "clients' own models" in str(about.get("no_best")):
        raise ValueError(
            f"{directory} trained a model for each client and none for all, so there is no model "
            "to export. Train with an algorithm whose clients share one, such as fedavg or ditto."
        )
