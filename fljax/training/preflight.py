"""Checks before the first round that parts are what they must be, and fit together."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fljax.algorithms.optimizer_arguments import checked_hyperparameter
from fljax.core.algorithm import Algorithm, AlgorithmSpec, Facts, Variables, blank_job
from fljax.core.gradients import LocalTask
from fljax.core.names import foreign, nearest
from fljax.core.per_client import is_per_client
from fljax.core.reads import Recorded
from fljax.core.task import Task
from fljax.core.transforms import Pipeline
from fljax.core.values import brief, shown
from fljax.data.dataset import ROLES, FederatedDataset, Partition
from fljax.data.labels import sample_labels, sample_targets
from fljax.training.options import RoundOptions
from fljax.training.rehearsal import rehearse
from fljax.training.trials import TrialInputs

PyTree = Any


def check_kinds(dataset: Any, algorithm: Any) -> None:
    """Raises TypeError for a data set or an algorithm that is something else."""
    if not isinstance(dataset, FederatedDataset):
        remedy = "fljax.data.from_arrays(x, y, client_ids=...)"
        if isinstance(dataset, str):
            remedy = f"fljax.data.load({dataset!r}, num_clients=100)"
        raise TypeError(
            f"dataset = {shown(dataset)} ({type(dataset).__name__}) is no FederatedDataset. Make "
            f"one: {remedy}."
        )
    if not isinstance(algorithm, AlgorithmSpec):
        remedy = "fljax.algorithms.fedavg(client_lr=0.1)"
        if callable(algorithm):
            remedy = f"call it: {getattr(algorithm, '__name__', 'fedavg')}(client_lr=0.1)"
        what = f"algorithm = {shown(algorithm)} ({type(algorithm).__name__})"
        raise TypeError(f"{what} is no algorithm; {remedy}.")
    if not callable(algorithm.build) or not isinstance(algorithm.hparams, Mapping):
        raise TypeError(
            f"algorithm = {shown(algorithm)}: an AlgorithmSpec has a function `build` and a dict "
            "`hparams` of numbers."
        )
    for name, value in algorithm.hparams.items():
        checked_hyperparameter(name, value)


def check_judging(spec: AlgorithmSpec, eval_personal: int) -> None:
    """Raises ValueError for what was given about clients' own models where none is judged."""
    for name, value in spec.judging.items() if eval_personal == 0 else ():
        raise ValueError(
            f"{name} = {shown(value)} has no effect with eval_personal = 0: {spec.name} reads it "
            "where clients' own models are judged. Leave it out, or set eval_personal, such as -1 "
            "for all clients."
        )


def check_classes(task: Task, dataset: FederatedDataset) -> None:
    """Raises ValueError for a task of fewer classes than the data have."""
    if task.num_classes is not None and task.num_classes < (dataset.num_classes or 0):
        raise ValueError(
            f"The task was made for {task.num_classes} classes, and {dataset.name!r} has "
            f"{dataset.num_classes}. Give {dataset.num_classes} where it is made."
        )


def check_labels(task: Task, dataset: FederatedDataset) -> None:
    """Raises ValueError for labels that are none of the task's classes; they would count nothing.

    So it does for other targets that the task refuses. Of generated examples and of large files,
    some rows are looked at.
    """
    if task.num_classes is None and task.problem is None:
        return
    for role in ROLES:
        split = getattr(dataset, role)
        if split is None:
            continue
        if task.num_classes is not None:
            _check_classes_of(role, *sample_labels(split.examples), task.num_classes, dataset.name)
        if task.problem and (found := task.problem(*sample_targets(split.examples))):
            raise ValueError(f"The {role} targets of {dataset.name!r}: {found}")


def _check_classes_of(
    role: str, y: np.ndarray | None, rows: np.ndarray, num_classes: int, name: str
) -> None:
    """Raises ValueError for labels of a split that are no classes."""
    if y is None or y.dtype.kind not in "iu" or not y.size:
        return
    wrong = y.max() if y.max() >= num_classes else y.min()
    if not 0 <= wrong < num_classes:
        place = np.argwhere(y == wrong)[0]
        raise ValueError(
            f"The {role} labels of {name!r} hold {wrong} (row {rows[place[0]]}), and the classes "
            f"are 0 to {num_classes - 1}. Number the labels from 0, or make data set and task for "
            "more classes."
        )


def check_root(dataset: FederatedDataset, pipeline: Pipeline) -> None:
    """Raises ValueError for root rows that no rule asks for, or another client in their place."""
    asked, root = pipeline.aggregator.root, dataset.root
    if root is not None and asked is None:
        raise ValueError(
            f"The server of {dataset.name!r} has root rows, and the aggregator would count them as "
            "those of a client. Choose one that asks for them, such as fltrust, or set root_rows = "
            "0."
        )
    if asked != root:
        said = "has no root rows" if root is None else f"has client {root} for them"
        raise ValueError(
            f"The aggregator takes client {asked} for the server's own, and {dataset.name!r} "
            f"{said}. Give the rule dataset.root, of fljax.data.with_root(dataset)."
        )


def check_schedules(options: RoundOptions, hparams: Mapping[str, Any]) -> None:
    """Evaluates the schedules of learning rates over all rounds.

    Raises:
      ValueError: For one that nothing reads, that is not written in jax.numpy, or that gives
        anything but numbers from 0 on.
    """
    for rate in ("client_lr", "server_lr"):
        name = f"{rate}_schedule"
        schedule = getattr(options, name)
        if schedule is None:
            continue
        if rate not in hparams:
            raise ValueError(f"{name} has no effect: the algorithm has no {rate}. Leave it out.")
        factors = _factors(name, schedule, options.num_rounds)
        wrong = np.flatnonzero(~(np.isfinite(factors) & (factors >= 0)))
        if wrong.size:
            raise ValueError(
                f"{name} gives {factors[wrong[0]]:g} in round {wrong[0]}; a factor of a learning "
                "rate is a finite number, at least 0."
            )


def _factors(name: str, schedule: Any, num_rounds: int) -> np.ndarray:
    """Returns float[R], what a schedule gives in each round."""
    try:
        kind = jax.eval_shape(lambda round: jnp.asarray(schedule(round)), jnp.int32(0))
    except Exception as error:
        raise ValueError(
            f"{name} = {shown(schedule)} cannot be traced ({brief(error)}). It is "
            "a function of the round in jax.numpy, such as lambda round: jnp.where(round < 10, 1, "
            "0.1)."
        ) from error
    if kind.shape or not jnp.issubdtype(kind.dtype, jnp.number) or _is_complex(kind.dtype):
        raise ValueError(
            f"{name} gives {kind.dtype}{list(kind.shape)}; it must give one real number a round."
        )
    return np.asarray(jax.jit(lambda rounds: jax.lax.map(schedule, rounds))(np.arange(num_rounds)))


def _is_complex(dtype: Any) -> bool:
    return jnp.issubdtype(dtype, jnp.complexfloating)


def check_read(
    spec: AlgorithmSpec,
    algorithm: Algorithm,
    hparams: Recorded,
    options: RoundOptions,
    variables: Variables,
    batch: Mapping[str, jax.ShapeDtypeStruct],
) -> None:
    """Refuses hyperparameters that nothing reads, and what multiplies rates that nothing reads.

    Args:
      spec: What the algorithm was built from.
      algorithm: Built with `hparams`.
      hparams: All of them, as the algorithm sees them.
      options: What a round does.
      variables: Of the initial model; shapes will do.
      batch: Shapes of a client's batch.

    Raises:
      TypeError: If there is such a hyperparameter.
      ValueError: If a schedule or factors have no effect.
    """
    factors = {
        "client_lr_schedule": "client_lr",
        "client_lr_factors": "client_lr",
        "server_lr_schedule": "server_lr",
    }
    scaled = {name: rate for name, rate in factors.items() if getattr(options, name) is not None}

    def unread():
        return [
            name
            for name, value in spec.hparams.items()
            if name not in hparams.read
            and (spec.defaults.get(name) != value or name in scaled.values())
        ]

    if unread():
        # some are read only where a step is taken
        jax.eval_shape(partial(rehearse, algorithm), variables, jax.random.key(0), batch=batch)
    if not unread():
        return
    name = unread()[0]
    for option, rate in scaled.items():
        if name == rate and spec.defaults.get(name) == spec.hparams[name]:
            raise ValueError(
                f"{option} has no effect: {spec.name} has an optimizer that does not read {rate}. "
                f"Let it read hp[{rate!r}], or leave {option} out."
            )
    read = sorted(hparams.read & spec.hparams.keys())
    raise TypeError(
        f"{spec.name}: nothing reads the hyperparameter {name} = {shown(spec.hparams[name])}. "
        f"{foreign(name, read) or _nearest(name, read)}Leave it out, or let an optimizer read it: "
        f"client_optimizer=lambda hp: ... hp[{name!r}]."
    )


def _nearest(name: str, read: list[str]) -> str:
    near = nearest(name, read)
    return f"Did you mean {near}? " if near else ""


def check_own_numbers(
    spec: AlgorithmSpec,
    algorithm: Algorithm,
    options: RoundOptions,
    variables: Variables,
    batch: Mapping[str, jax.ShapeDtypeStruct],
) -> None:
    """Refuses numbers of clients' own that the algorithm does not use.

    Args:
      spec: What the algorithm was built from.
      algorithm: The algorithm.
      options: What a round does.
      variables: Of the initial model; shapes will do.
      batch: Shapes of a client's batch.

    Raises:
      ValueError: If there are such.
    """
    if options.client_lr_factors is not None and "client_lr" not in spec.hparams:
        raise ValueError(
            f"client_lr_factors have no effect: {spec.name} has no client_lr. Leave them out."
        )
    local = any(each.schedule == "local" for each in algorithm.passes)
    for name in ("local_epochs", "local_steps"):
        if is_per_client(getattr(options, name)) and not local:
            raise ValueError(
                f"{name} of each client have no effect: {spec.name} reads every row once. Leave "
                "them out."
            )
    if options.client_weights is None:
        return

    def round_of_one_client(variables, key, batch, weight):
        job = blank_job(key, weight)
        return rehearse(algorithm, variables, key, batch=batch, job=job).server

    traced = jax.make_jaxpr(round_of_one_client)
    jaxpr = traced(variables, jax.random.key(0), batch, jnp.float32(1)).jaxpr
    used = {id(var) for equation in jaxpr.eqns for var in equation.invars}
    if id(jaxpr.invars[-1]) not in used | set(map(id, jaxpr.outvars)):
        raise ValueError(
            f"client_weights have no effect: {spec.name} does not read job.weight. Where it makes "
            "its Contributions, take job.weight as the weight if it is not None."
        )


def warn_of_numbers(
    spec: AlgorithmSpec,
    trials: Sequence[TrialInputs],
    partitions: Sequence[Partition],
    options: RoundOptions,
    groups: np.ndarray | None,
) -> None:
    """Warns of hyperparameters that do not suit the clients, as the algorithm says."""
    if spec.caution is None:
        return
    given = options.client_weights
    weights = None if given is None else np.asarray(given, float)
    said = set()
    for trial in trials:
        sizes = partitions[trial.partition].sizes
        of_whom = np.zeros(len(sizes), int) if groups is None else groups
        facts = Facts(sizes, weights, of_whom, options.clients_per_round)
        said.add(spec.caution(trial.hparams, facts))
    for caution in sorted(said - {None}):
        warnings.warn(caution, stacklevel=2)


def check_model(
    task: LocalTask, variables: Variables, batch: Mapping[str, jax.ShapeDtypeStruct]
) -> None:
    """Traces the model on a batch, so that what does not fit is said before anything is placed.

    Raises:
      ValueError: If the model has no parameters.
    """
    key = jax.eval_shape(lambda: jax.random.key(0))
    jax.eval_shape(
        lambda variables, batch, key: task.loss(*variables, batch, key, True)[0],
        variables,
        dict(batch),
        key,
    )
    if not jax.tree.leaves(variables.params):
        raise ValueError(
            "The model has no parameters, so there is nothing to train. Its init must return some; "
            "of an NNX module they are its nnx.Param."
        )
