"""Builds what the machines of a deployment share: one configuration, made concrete on each.

Server and nodes build the same algorithm and the same pipeline out of the configuration of a run,
as the simulation does; a round of a deployment is the round program, cut where messages travel:
`node.py` trains clients, `server.py` does the rest.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from fljax.config.experiment import Experiment, make_experiment
from fljax.core.algorithm import Algorithm, Variables
from fljax.core.transforms import Pipeline
from fljax.data.dataset import FederatedDataset
from fljax.engine.devices.execution import ExecutionPlan, make_mesh
from fljax.engine.plan.planner import Planner, make_planner
from fljax.engine.program.inputs import ClientRows, Inputs, Program
from fljax.export.flower.refusals import refuse
from fljax.recording.models import SavedModel
from fljax.training.blueprint import Blueprint, algorithm_builder, draw_blueprint
from fljax.training.client_state import default_rows
from fljax.training.hyperparameters import own_numbers
from fljax.training.options import split_options
from fljax.training.rehearsal import Rehearsal, rehearsed
from fljax.training.simulation import matmul_precision

PyTree = Any


class Deployment(NamedTuple):
    """A federation as each of its machines has it, for one trial on one device.

    Attributes:
      blueprint: The parts of the federation.
      program, inputs: Those of the round program, without data.
      variables: `Variables` of the model that the first round starts from.
      client_rows: What a client has kept that never took part, NumPy leaves.
      shapes: What a round of one client sends and receives.
      matmul_precision: Of the configuration; None for JAX's own.
    """

    blueprint: Blueprint
    program: Program
    inputs: Inputs
    variables: Variables
    client_rows: ClientRows
    shapes: Rehearsal
    matmul_precision: str | None

    @property
    def algorithm(self) -> Algorithm:
        """The algorithm."""
        return self.blueprint.algorithm

    @property
    def pipeline(self) -> Pipeline:
        """The transforms between clients and server."""
        return self.blueprint.pipeline

    @property
    def mesh(self) -> Mesh:
        """The device."""
        return self.program.mesh

    @property
    def num_rounds(self) -> int:
        """Rounds that the configuration asks for."""
        return self.blueprint.options.num_rounds


def deploy(
    config: Mapping[str, Any],
    model: SavedModel | None = None,
    dataset: FederatedDataset | None = None,
) -> Deployment:
    """Returns the deployment of a configuration.

    Args:
      config: The configuration, as plain values.
      model: The model that the first round starts from; None is the run's initial one.
      dataset: The data, where they are loaded already. A machine need not have all rows: sizes of
        clients, shapes and classes are what is read of it.

    Raises:
      ValueError: If a deployment cannot do what the configuration says.

    Example:
      >>> config = fljax.default_config().to_dict() | {"clients_per_round": 5, "num_clients": 10}
      >>> deployment = deploy({**config, "model": "softmax_regression", "partition": "iid"})
      >>> deployment.algorithm.passes[0].schedule, deployment.variables
      ('local', Variables(650 parameters in 2 arrays))
    """
    return of_experiment(make_experiment(config, dataset), model)


def of_experiment(experiment: Experiment, model: SavedModel | None = None) -> Deployment:
    """Returns the deployment of an experiment; arguments as for `deploy`."""
    options, of_run = split_options(experiment.options)
    blueprint = draw_blueprint(experiment.dataset, experiment.task, experiment.algorithm, options)
    refuse(blueprint)
    initial = blueprint.initial
    variables = jax.tree.map(lambda leaf: leaf[0], initial.variables)
    frozen = initial.frozen
    if model is not None:
        variables = _in_place_of(variables, model.variables)
        frozen = _in_place_of(frozen, model.frozen)
    of_trials = jax.tree.map(lambda leaf: np.asarray(leaf)[None], variables)
    rows = default_rows(blueprint.algorithm, options.pipeline, of_trials)
    own = own_numbers(options, experiment.dataset.num_clients, initial.hparams["num_clients"].dtype)
    program = Program(algorithm_builder(blueprint), options.pipeline, make_mesh(1))
    inputs = Inputs(None, frozen, initial.hparams, initial.keys, own)
    default = jax.tree.map(lambda leaf: leaf[0], rows)
    shapes = rehearsed(experiment.dataset, blueprint.task, experiment.algorithm, options.pipeline)
    precision = of_run.matmul_precision
    return Deployment(blueprint, program, inputs, variables, default, shapes, precision)


def precise(deployment: Deployment, function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a function whose products have the precision that the configuration asks for."""

    @functools.wraps(function)
    def in_precision(*arguments):
        with matmul_precision(deployment.matmul_precision):
            return function(*arguments)

    return in_precision


def planner_of(deployment: Deployment, jobs: int, placement: str) -> Planner:
    """Returns what plans the work of clients, on one lane.

    Args:
      deployment: The deployment.
      jobs: The most jobs of a plan.
      placement: "stream" has the rows of the jobs in the plan, "device" their numbers alone.
    """
    blueprint = deployment.blueprint
    planned = blueprint.options.steps_per_round
    return make_planner(
        blueprint.split,
        blueprint.work,
        blueprint.schedules,
        ExecutionPlan(1, 1, 1, 1, placement),
        max_cohort=jobs,
        seeds=[trial.seed for trial in blueprint.trials],
        max_steps=None if planned is None else max(planned),
    )


def _in_place_of(tree: PyTree, other: PyTree) -> PyTree:
    """Returns what a file holds in the structure of what it takes the place of."""
    leaves, structure = jax.tree.flatten(tree)
    found = jax.tree.leaves(other)
    shapes, expected = ([np.shape(leaf) for leaf in each] for each in (found, leaves))
    if shapes != expected:
        raise ValueError(
            f"The model of the app has arrays of shapes {shapes}, and the configuration one of "
            f"{expected}. Export the run again."
        )
    return jax.tree.unflatten(structure, found)
