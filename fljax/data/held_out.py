"""Keeps some clients out of training, to judge what is learned on clients that it never saw."""

from __future__ import annotations

import dataclasses

import numpy as np

from fljax.core import random
from fljax.data.dataset import FederatedDataset, Split
from fljax.data.partition_arguments import partition_setting


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
    for role in ("held_out", "val"):
        if getattr(dataset, role) is not None:
            raise ValueError(
                f"held_out_fraction = {fraction}, but {dataset.name!r} has a {role} split already: "
                "clients are held out of those that train, and validation rows chosen after them"
            )
    num_clients = dataset.num_clients
    count = max(1, round(fraction * num_clients))
    if not fraction or count >= num_clients:
        raise ValueError(
            f"held_out_fraction = {fraction} of {num_clients} clients would hold out "
            f"{count if fraction else 0}: one at least must be held out, and one must train"
        )
    order = random.generator(seed, "held-out clients").permutation(num_clients)
    held_out, trained = np.sort(order[:count]), np.sort(order[count:])

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
