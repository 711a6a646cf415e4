"""Trains the baselines of a federated run: pooled data, and every client on its own.

Both take as many gradient steps in total as the federated run's clients took together (its
`train/local_steps`), at the same batch size and with the same client optimizer, so that one plot
shows three comparable curves. An algorithm without local steps, such as FedSGD, computes one
gradient for each batch of its epoch; its baselines step along each of them, at the server's rate.

In the federated run clients start their optimizer anew in each round. A baseline does not: it is
plain training, cut into rounds of so many steps, and its momentum or moments go on from round to
round. Only the order of rows starts anew: a round reads epochs from their beginning, as far as its
steps go.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fljax import algorithms
from fljax.core import signals
from fljax.core.algorithm import AlgorithmSpec
from fljax.core.settings import PRIVACY, ROBUSTNESS, SYSTEMS
from fljax.core.task import Task
from fljax.core.transforms import Pipeline
from fljax.data.dataset import FederatedDataset, Partition
from fljax.data.splits.root import without_root
from fljax.engine.devices.distributed import allgather
from fljax.recording import Run
from fljax.training.evaluations import STAND_INS
from fljax.training.options import RoundOptions
from fljax.training.sampling import make_sampler

# What people may ask about the results of a baseline.
MEANT_BY = {
    "local_only": f"; mean of up to {STAND_INS} clients' own models on everybody's rows",
}


# Nothing is sent, or all of it is there already.
_UNPROTECTED = {
    "pipeline": Pipeline(),
    **dict.fromkeys(PRIVACY),
    **{name: field.default for name, field in (ROBUSTNESS | SYSTEMS).items()},
}


def run_baselines(
    run: Run,
    simulate: Callable[..., Run],
    dataset: FederatedDataset,
    task: Task,
    algorithm: AlgorithmSpec,
    round_options,
    run_options,
) -> Run:
    """Runs the baselines that the options name; returns the run with them attached.

    Args:
      run: The finished federated run.
      simulate: (dataset, task, algorithm, RoundOptions, RunOptions) -> Run.
      dataset: The federated data.
      task: The task.
      algorithm: The federated algorithm, whose client optimizer and hyperparameters are used.
      round_options: Its RoundOptions.
      run_options: Its RunOptions.

    Returns:
      The run with its baselines; interrupted if one of them was.
    """
    steps = [int(count) for count in run.curves["train/local_steps"] if np.isfinite(count)]
    local, round_options = _local_training(algorithm, round_options)
    found = {}
    for name in run_options.baselines:
        workdir, hooks = run_options.workdir, tuple(run_options.hooks)
        own_options = dataclasses.replace(
            run_options,
            workdir=None if workdir is None else Path(workdir) / "baselines" / name,
            baselines=(),
            checkpoint_every=0,
            ceremony=False,
            stop_at_target=False,
            patience=0,
            min_delta=0.0,
            sinks=(),
            config={"baseline": name},
            hooks=(*hooks, _send_nothing) if name == "centralized" else hooks,
            eval_clients=0,
            eval_personal=run_options.eval_personal if name == "local_only" else 0,
        )
        found[name] = simulate(
            *BASELINES[name](dataset, task, local, round_options, steps),
            own_options,
        )
        if found[name].interrupted:
            break
        if name != run_options.baselines[-1] and stopped_late():
            found[name] = found[name]._replace(interrupted=True)
            break
    return run._replace(
        baselines=found, interrupted=any(baseline.interrupted for baseline in found.values())
    )


def check_baselines(names: Sequence[str], options: RoundOptions, dataset: FederatedDataset) -> None:
    """Raises ValueError for a baseline that there is not; `simulate` asks before it starts."""
    for name in names:
        if name not in BASELINES:
            raise ValueError(f"baselines has {name!r}; choose from {', '.join(BASELINES)}.")
    if "centralized" in names and dataset.moves:
        raise ValueError(
            "baselines has 'centralized', which pools the rows of all clients once, and those of "
            f"{dataset.name!r} drift over the rounds. Leave it out; 'local_only' drifts along."
        )
    if "local_only" not in names:
        return
    feedback = make_sampler(dataset, options, options.seed).feedback
    if feedback != "none":
        raise ValueError(
            "baselines has 'local_only', which trains the same cohorts again; but those of a "
            f"sampler with {feedback} feedback follow from the models. Leave it out."
        )


def stopped_late() -> bool:
    """Returns whether a process was asked to stop in the last round, with which a run is over."""
    return any(allgather(signals.received() is not None))


def _send_nothing(federation, record) -> None:
    """A hook that amends records: what the server and the one client exchange leaves no machine."""
    record.update({key: 0 for key in record if key.startswith("comm/")})


def _local_training(algorithm: AlgorithmSpec, options) -> tuple[AlgorithmSpec, Any]:
    """Returns local-only training with the algorithm's client optimizer, and its round options."""
    hparams = dict(algorithm.hparams)
    if algorithm.client_optimizer is None and "client_lr" not in hparams:
        hparams["client_lr"] = hparams["server_lr"]
        options = dataclasses.replace(
            options,
            local_epochs=1,
            local_steps=None,
            remainder="partial",
            client_lr_schedule=options.server_lr_schedule,
        )
    local = algorithms.local_only(
        client_momentum=hparams.get("client_momentum"), client_optimizer=algorithm.client_optimizer
    )
    return _with_hparams(local, hparams), options


def _with_hparams(spec: AlgorithmSpec, hparams) -> AlgorithmSpec:
    """Returns the algorithm with other hyperparameters, some of which it need not read."""
    return spec._replace(build=lambda task, hp: spec.build(task, dict(hp)), hparams=hparams)


def _centralized(dataset, task, local, options, steps):
    """One client that owns all rows, and takes the cohort's steps in each round."""
    rows = np.sort(dataset.train.rows())
    pooled = without_root(dataset).repartition(Partition(np.array([0, len(rows)]), rows))
    batch = int(np.median(options.batch_size)) or int(dataset.train.partition.sizes.max())
    options = dataclasses.replace(
        options,
        num_rounds=len(steps),
        # an optimizer with a state keeps it between rounds
        rounds_per_dispatch=min(options.rounds_per_dispatch, 1),
        clients_per_round=1,
        local_epochs=1,
        local_steps=None,
        batch_size=batch,
        client_lr_factors=None,
        client_weights=None,
        sampler="uniform",
        separation=None,
        cohorts=None,
        steps_per_round=steps,
        server_lr_schedule=None,
        **_UNPROTECTED,
    )
    spec = algorithms.centralized(local.client_optimizer)
    return pooled, task, _with_hparams(spec, {**local.hparams, "server_lr": 1.0}), options


def _local_only(dataset, task, local, options, steps):
    """The same cohorts and local work; every client continues its own model."""
    options = dataclasses.replace(
        options,
        num_rounds=len(steps),
        client_weights=None,
        rounds_per_dispatch=1,
        **_UNPROTECTED,
    )
    return without_root(dataset), task, local, options


BASELINES = {"centralized": _centralized, "local_only": _local_only}
