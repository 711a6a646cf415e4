"""Divides rows by the two rules of PFLlib (Zhang et al., arXiv:2312.04992), whose tables many cite.

The rules are those of its `dataset/utils/dataset_utils.py`, "pat" and "dir"; the random numbers are
our own, so that equal seeds give other clients than there. PFLlib pools training and test rows
before it divides them, and tests each client on a quarter of its own: `own_test_fraction=0.25`.
"""

from __future__ import annotations

import numpy as np

from fljax.core import random
from fljax.core.values import Field, checked
from fljax.data.dataset import Partition
from fljax.data.partitions.dirichlet import by_class_draws
from fljax.data.partitions.partition_arguments import (
    check_room,
    class_labels,
    partition_setting,
    rows_by_class,
)
from fljax.data.partitions.repair import repaired_partition

# PFLlib draws for ever.
_MOST_DRAWS = 100


def pfllib_pathological(
    labels: np.ndarray,
    num_clients: int,
    *,
    classes_per_client: int = 2,
    balanced: bool = False,
    seed: int = 0,
    min_partition_size: int = 1,
) -> Partition:
    """Gives neighbouring clients the same few classes, and unequal parts of each.

    The rule "pat": of K classes, class by class, the first ceil(N / K x classes_per_client) clients
    that still lack classes share a class. Each of them but the last gets a uniform number of rows,
    from a tenth of an equal part to an equal part; the last one gets the rest, about half of the
    class where many share it. So client 0 has classes 0 and 1.

    Args:
      labels: int[rows].
      num_clients: N.
      classes_per_client: Classes of a client, at most the number of classes present.
      balanced: Whether the clients of a class get equal parts of it, as PFLlib's "balance" says.
      seed: Chooses the rows, and how many.
      min_partition_size: The fewest rows a client may have; PFLlib's rule keeps to none.

    Returns:
      A partition over N clients.

    Raises:
      ValueError: If there are too few clients for the classes, or an argument is out of range.

    Example:
      >>> labels = np.arange(40) % 4
      >>> partition = data.pfllib_pathological(labels, 4, classes_per_client=2)
      >>> (data.label_counts(labels, partition, 4) > 0).astype(int).tolist()
      [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]]
    """
    labels = class_labels(labels)
    num_clients, min_partition_size, seed = check_room(
        labels.size, num_clients, min_partition_size, seed
    )
    per_client = partition_setting("classes_per_client", classes_per_client)
    balanced = checked("balanced", balanced, Field(False, bool))
    rng = random.generator(seed, "partition/pfllib_pathological")
    by_class = rows_by_class(labels, rng)
    if per_client > len(by_class):
        raise ValueError(
            f"classes_per_client={per_client}, but the labels have only {len(by_class)} classes"
        )
    share = int(np.ceil(num_clients / len(by_class) * per_client))
    lacking = np.full(num_clients, per_client)
    owner = np.empty(labels.size, np.int64)
    for number, rows in enumerate(by_class):
        takers = np.flatnonzero(lacking)[:share]
        if not takers.size:
            raise ValueError(
                f"{num_clients} clients x {per_client} classes leave class number {number} of "
                f"{len(by_class)} to nobody: let num_clients x classes_per_client be a multiple of "
                "the classes"
            )
        equal = rows.size / takers.size
        low = int(max(equal / 10, 1 / len(by_class)))
        counts = rng.integers(low, max(int(equal), low + 1), takers.size - 1)
        if balanced:
            counts[:] = int(equal)
        ends = np.append(np.cumsum(counts), rows.size)
        owner[rows] = takers[np.searchsorted(ends, np.arange(rows.size), side="right")]
        lacking[takers] -= 1
    return repaired_partition(owner, labels, num_clients, min_partition_size, seed)


def pfllib_dirichlet(
    labels: np.ndarray,
    num_clients: int,
    *,
    alpha: float = 0.1,
    seed: int = 0,
    min_partition_size: int = 1,
) -> Partition:
    """Divides each class by a Dirichlet draw over the clients that have less than an equal share.

    The rule "dir": for each class p ~ Dir(alpha, ..., alpha) over the clients; those with rows / N
    rows or more get nothing further, and the others' parts are scaled up. All is drawn again until
    each client has `min_partition_size` rows; that is `dirichlet(self_balancing=True)`, which
    moves rows after ten draws. After a hundred, so does this one, where PFLlib draws for ever.

    Args:
      labels: int[rows].
      num_clients: N.
      alpha: Concentration; PFLlib's is 0.1.
      seed: Chooses the partition.
      min_partition_size: The fewest rows a client may have: 1 in PFLlib since 2024, and before
        the smaller one of 40 and half an equal share.

    Returns:
      A partition over N clients.

    Raises:
      ValueError: If there are too few rows for the clients, or an argument is out of range.

    Example:
      >>> labels = np.arange(40) % 4
      >>> data.pfllib_dirichlet(labels, 4, alpha=0.1, min_partition_size=2).sizes.tolist()
      [9, 18, 3, 10]
    """
    return by_class_draws(
        labels, num_clients, alpha, True, seed, min_partition_size, _MOST_DRAWS, "pfllib_dirichlet"
    )
