"""Shadow federations: many runs of one configuration, each without some of the rows.

They are trials of one round program, and differ in their seed and in who owns which rows. An
attacker trains them to learn what a model is like that has seen a row, and one that has not; an
audit trains them and attacks each with the help of the others.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from fljax.config.experiment import Experiment, with_protection
from fljax.data.dataset import FederatedDataset, Partition, Split, offsets_of
from fljax.privacy.protection import NOISE
from fljax.studies.audit.federations import one_program
from fljax.studies.groups import Group, check_budget, from_function
from fljax.studies.space import Trial
from fljax.training.options import round_options_among


def shadow_group(
    experiment: Experiment, targets: np.ndarray, members: np.ndarray, seed: int = 0
) -> Group:
    """Returns M federations as trials that share a program, each on the rows that are its own.

    Where the noise follows from a budget, all have that of the experiment's own rows, since what
    is released is attacked; on fewer rows it spends more than the budget.

    Args:
      experiment: What all of them do, before its protection is drawn; its evaluations are left out.
      targets: int[T] row numbers of the training examples, each owned by a client.
      members: bool[M, T], which targets each federation trains on. Rows that are no targets are
        trained on by all.
      seed: Federation m has the seed `seed + m`.

    Raises:
      ValueError: For targets that nobody owns, or federations that cannot share a program.
    """
    targets = np.asarray(targets)
    _check_targets(experiment.dataset, targets, members)
    plain = round_options_among(experiment.options) | _found_noise(experiment)

    def make(trial: Trial) -> Experiment:
        own = shadow_dataset(experiment.dataset, targets, members[trial.number])
        options = plain | {"seed": trial.seed}
        return experiment._replace(dataset=own, options=options)

    trials = [Trial(number, {}, seed=seed + number) for number in range(len(members))]
    return one_program(trials, from_function(make))


def shadow_dataset(
    dataset: FederatedDataset, targets: np.ndarray, is_member: np.ndarray
) -> FederatedDataset:
    """Returns a data set without the targets that are no members.

    Args:
      dataset: All rows.
      targets: int[T] row numbers of the training examples.
      is_member: bool[T].

    Example:
      >>> dataset = fljax.data.digits(partition='iid', num_clients=4)
      >>> rows = dataset.train.rows()[:10]
      >>> half = shadow_dataset(dataset, rows, np.arange(10) < 5)
      >>> dataset.train.num_rows - half.train.num_rows
      5
    """
    partition = dataset.train.partition
    kept = ~np.isin(partition.all_rows(), np.asarray(targets)[~is_member])
    sizes = np.bincount(partition.owners()[kept], minlength=partition.num_clients)
    own = Partition(offsets_of(sizes), partition.all_rows()[kept])
    return dataclasses.replace(dataset, train=Split(dataset.train.examples, own))


def _found_noise(experiment: Experiment) -> dict[str, Any]:
    """Returns the options of a noise that is known; nothing where no budget says what it is."""
    if experiment.options.get("target_epsilon") is None:
        return {}
    private = with_protection(experiment)
    check_budget(private)
    found = private.hparams.get(NOISE)
    return {} if found is None else {"target_epsilon": None, NOISE: found}


def _check_targets(dataset: FederatedDataset, targets: np.ndarray, members: np.ndarray) -> None:
    owned = np.isin(targets, dataset.train.partition.all_rows())
    if not owned.all():
        raise ValueError(
            f"targets[{int(np.argmin(owned))}] = {targets[np.argmin(owned)]} is a row that no "
            "client trains on. Take targets among dataset.train.rows()."
        )
    if members.shape[1:] != targets.shape or not len(members):
        raise ValueError(
            f"members has shape {list(members.shape)}, but must have a line for each federation "
            f"and a column for each of {len(targets)} targets."
        )
