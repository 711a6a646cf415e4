"""Gives the server a few clean training rows of its own, which one client more trains on: the root.

The root takes part in every round and stands for the server: rules such as FLTrust (Cao et al.,
arXiv:2012.13995) judge updates by its update. It is no client of the population: no sampler draws
it, nothing is sent for it, and it is judged nowhere.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from fljax.core import random
from fljax.data.dataset import FederatedDataset, Split, check_stays
from fljax.data.ownership import Partition, offsets_of
from fljax.data.partitions.partition_arguments import partition_setting


def with_root(dataset: FederatedDataset, rows: int = 100, seed: int = 0) -> FederatedDataset:
    """Returns the dataset with a further client, the server's own, that holds clean rows.

    They are drawn among all training rows alike and taken away from their owners, so that every
    row has one owner still; each client keeps one row at least. Rows whose labels were made wrong
    are not drawn. Of rows that stay together by subject whole subjects are, which brings their
    number near `rows`. The root is the last client; where clients have groups, it has that of most
    of its rows, and where they have ids, "root", or the number behind the largest.

    Args:
      dataset: As it is to be otherwise: what changes clients or rows comes before.
      rows: How many.
      seed: Chooses them.

    Raises:
      ValueError: If there is a root already, rows change over the rounds, or clients cannot spare
        so many.

    Example:
      >>> clients = data.from_arrays(np.eye(12), [0, 1] * 6, client_ids=list("aaabbbcccddd"))
      >>> rooted = data.with_root(clients, rows=4)
      >>> rooted
      FederatedDataset('arrays': classification, 2 classes, 4 clients and the server's own, \
rows: train 12)
      >>> rooted.root, rooted.train.partition.sizes[-1], rooted.client_ids.tolist()
      (4, np.int64(4), ['a', 'b', 'c', 'd', 'root'])
    """
    rows = partition_setting("root_rows", rows)
    seed = partition_setting("seed", seed)
    if not rows:
        raise ValueError("root_rows = 0 leaves the server without rows; give some, such as 100.")
    check_stays(dataset, "given to the server")
    partition = dataset.train.partition
    taken = _drawn(dataset, rows, seed)
    own, owner = partition.all_rows(), partition.owners()
    sizes = partition.sizes - np.bincount(owner[taken], minlength=partition.num_clients)
    train = Partition(
        offsets_of(np.append(sizes, taken.sum())), np.concatenate([own[~taken], own[taken]])
    )
    ids, noisy = dataset.client_ids, dataset.noisy_labels
    return dataclasses.replace(
        dataset,
        train=Split(dataset.train.examples, train),
        val=_without_rows(dataset.val),
        test=_without_rows(dataset.test),
        client_ids=None if ids is None else np.append(ids, _id_beside(ids)),
        groups={
            name: np.append(values, _most_common(values[owner[taken]]))
            for name, values in dataset.groups.items()
        },
        noisy_labels=noisy and noisy._replace(shares=np.append(noisy.shares, 0.0)),
        root=partition.num_clients,
    )


def without_root(dataset: FederatedDataset) -> FederatedDataset:
    """Returns the dataset of the population alone; without a root, itself.

    Example:
      >>> clients = data.from_arrays(np.eye(12), [0, 1] * 6, num_clients=3)
      >>> data.without_root(data.with_root(clients, rows=4)).train.num_rows
      8
    """
    if dataset.root is None:
        return dataset
    clients = np.arange(dataset.members)
    ids, noisy = dataset.client_ids, dataset.noisy_labels

    def of(split: Split | None) -> Split | None:
        if split is None or split.partition is None:
            return split
        return Split(split.examples, split.partition.subset(clients))

    return dataclasses.replace(
        dataset,
        train=of(dataset.train),
        val=of(dataset.val),
        test=of(dataset.test),
        client_ids=None if ids is None else ids[clients],
        groups={name: values[clients] for name, values in dataset.groups.items()},
        noisy_labels=noisy and noisy._replace(shares=noisy.shares[clients]),
        root=None,
    )


def _drawn(dataset: FederatedDataset, rows: int, seed: int) -> np.ndarray:
    """Returns bool[rows of all clients], which of them the server takes."""
    partition, subjects = dataset.train.partition, dataset.subjects
    own, owner = partition.all_rows(), partition.owners()
    # what goes together: all rows of a subject, or a row; all are equally likely to come early, and
    # the last one of a client stays with it
    found, first, unit, sizes = np.unique(
        own if subjects is None else subjects[own],
        return_index=True, return_inverse=True, return_counts=True,
    )  # fmt: skip
    order = np.argsort(random.bits(seed, "root rows", found), kind="stable")
    last = np.full(partition.num_clients, -1)
    last[owner[first[order]]] = order  # of several writes to one place the last one counts
    free = np.ones(len(found), bool)
    free[last[last >= 0]] = False
    if dataset.noisy_labels is not None:
        free[unit[np.isin(own, dataset.noisy_labels.rows)]] = False
    order = order[free[order]]
    ends = np.cumsum(sizes[order])
    available = int(ends[-1]) if ends.size else 0
    if rows > available:
        clean = "" if dataset.noisy_labels is None else " with the right label"
        raise ValueError(
            f"root_rows = {rows}, but the clients of {dataset.name!r} can spare {available} "
            f"rows{clean} if each keeps one: take fewer"
        )
    taken = np.zeros(len(found), bool)
    taken[order[ends - sizes[order] / 2 < rows]] = True
    return taken[unit]


def _without_rows(split: Split | None) -> Split | None:
    """Returns a split in which one client more owns no rows."""
    if split is None or split.partition is None:
        return split
    offsets = split.partition.offsets
    return Split(split.examples, Partition(np.append(offsets, offsets[-1]), split.partition.index))


def _id_beside(ids: np.ndarray):
    if ids.dtype.kind in "US":
        return np.array(["root"]).astype(ids.dtype.kind)
    return int(ids.max()) + 1


def _most_common(values: np.ndarray):
    found, counts = np.unique(values, return_counts=True)
    return found[counts.argmax()]
