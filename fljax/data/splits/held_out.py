"""Keeps some clients out of training, to judge what is learned on clients that it never saw."""

from __future__ import annotations

import dataclasses

import numpy as np

from fljax.core import random
from fljax.data.dataset import FederatedDataset, Split, check_has_no_root
from fljax.data.partitions.partition_arguments import partition_setting


def with_held_out(dataset: FederatedDataset, fraction: float, seed: int = 0) -> FederatedDataset:
    """Returns the dataset with some of its clients held out.

    Where clients own test rows, held-out clients are judged on those, and keep their training rows
    (`held_out_train`) to adapt a model to; else they are judged on all rows that they have.

    Args:
      dataset: Without held-out clients and validation rows.
      fraction: Of the clients, in (0, 1); the nearest whole number of them, one at least.
      seed: Chooses the clients.

    Raises:
      ValueError: If clients are held out already, or none would be left to train.

    Example:
      >>> clients = data.from_arrays(np.eye(20), [0, 1] * 10, num_clients=5, own_test_fraction=0.5)
      >>> data.with_held_out(clients, 0.4)
      FederatedDataset('arrays': classification, 2 classes, 3 clients, rows: train 6, test 6, \
held_out 4, held_out_train 4)
    """
    fraction = partition_setting("held_out_fraction", fraction)
    seed = partition_setting("seed", seed)
    _check_none_yet(dataset, f"held_out_fraction = {fraction}")
    num_clients = dataset.num_clients
    count = max(1, round(fraction * num_clients))
    if not fraction or count >= num_clients:
        raise ValueError(
            f"held_out_fraction = {fraction} of {num_clients} clients would hold out "
            f"{count if fraction else 0}: one at least must be held out, and one must train"
        )
    return _without(dataset, _order(num_clients, seed)[:count])


def with_fold(dataset: FederatedDataset, fold: int, folds: int, seed: int = 0) -> FederatedDataset:
    """Returns the dataset with one of several folds of its clients held out.

    Every client is held out in one fold, and trains in all others: cross-validation over clients.
    Sizes of folds differ by one client at most. Otherwise as `with_held_out`.

    Args:
      dataset: Without held-out clients and validation rows.
      fold: Which one is held out, from 0.
      folds: How many there are, from 2 to the number of clients.
      seed: Deals the clients to folds.

    Raises:
      ValueError: If clients are held out already, or there is no such fold.

    Example:
      >>> clients = data.from_arrays(np.eye(12), [0, 1] * 6, num_clients=6)
      >>> each = [data.with_fold(clients, fold, 3).held_out_ids.tolist() for fold in range(3)]
      >>> sorted(sum(each, []))
      [0, 1, 2, 3, 4, 5]
    """
    folds = partition_setting("held_out_folds", folds)
    fold = partition_setting("held_out_fold", fold)
    seed = partition_setting("seed", seed)
    _check_none_yet(dataset, f"held_out_folds = {folds}")
    if folds > dataset.num_clients:
        raise ValueError(
            f"held_out_folds = {folds}, but there are {dataset.num_clients} clients: each fold "
            "holds one out at least"
        )
    if fold >= folds:
        raise ValueError(f"held_out_fold = {fold}, and {folds} folds are numbered 0 to {folds - 1}")
    return _without(dataset, _order(dataset.num_clients, seed)[fold::folds])


def _check_none_yet(dataset: FederatedDataset, asked: str) -> None:
    check_has_no_root(dataset, "held out")
    for role in ("held_out", "val"):
        if getattr(dataset, role) is not None:
            raise ValueError(
                f"{asked}, but {dataset.name!r} has a {role} split already: "
                "clients are held out of those that train, and validation rows chosen after them"
            )


def _order(num_clients: int, seed: int) -> np.ndarray:
    return random.generator(seed, "held-out clients").permutation(num_clients)


def _without(dataset: FederatedDataset, clients: np.ndarray) -> FederatedDataset:
    """Returns the dataset with these clients held out."""
    held_out = np.sort(clients)
    trained = np.setdiff1d(np.arange(dataset.num_clients), held_out)

    def of(split: Split, clients: np.ndarray) -> Split:
        return Split(split.examples, split.partition.subset(clients))

    train, test, ids = dataset.train, dataset.test, dataset.client_ids
    owns_test = test is not None and test.partition is not None
    return dataclasses.replace(
        dataset,
        train=of(train, trained),
        test=of(test, trained) if owns_test else test,
        held_out=of(test if owns_test else train, held_out),
        held_out_train=of(train, held_out) if owns_test else None,
        client_ids=None if ids is None else ids[trained],
        held_out_ids=held_out if ids is None else ids[held_out],
        groups={name: values[trained] for name, values in dataset.groups.items()},
        held_out_groups={name: values[held_out] for name, values in dataset.groups.items()},
    )
