"""Partitioners: how rows are divided among clients that the data do not name.

Every partitioner maps labels to a `Partition` in which each row belongs to exactly one client. All
take `(labels, num_clients, *, seed, min_partition_size, ...)`, run in bounded time, and give the
same partition for the same seed. `labels` is an integer vector, or, where labels play no part, the
number of rows. Dirichlet partitions come in incompatible meanings: see `dirichlet.py`.
"""

from __future__ import annotations

import numpy as np

from fljax.core import random
from fljax.data.dataset import Partition, partition_by_owner
from fljax.data.ids import unique_ids
from fljax.data.partitions.partition_arguments import (
    check_count,
    check_room,
    class_labels,
    partition_setting,
    row_count,
    rows_by_class,
)
from fljax.data.partitions.repair import repaired_partition


def iid(
    labels: np.ndarray | int, num_clients: int, *, seed: int = 0, min_partition_size: int = 1
) -> Partition:
    """Shuffles the rows and deals them out; sizes differ by at most one.

    Args:
      labels: int[rows], or the number of rows.
      num_clients: N.
      seed: Chooses the partition.
      min_partition_size: The fewest rows a client may have.

    Returns:
      A partition over N clients.

    Raises:
      ValueError: If there are too few rows for the clients, or an argument is out of range.

    Example:
      >>> labels = np.arange(12) % 3
      >>> partition = data.iid(labels, 3)
      >>> partition.sizes.tolist()
      [4, 4, 4]
      >>> data.label_counts(labels, partition, 3).tolist()
      [[0, 2, 2], [2, 1, 1], [2, 1, 1]]
    """
    num_rows = row_count(labels)
    num_clients, min_partition_size, seed = check_room(
        num_rows, num_clients, min_partition_size, seed
    )
    rng = random.generator(seed, "partition/iid")
    return partition_by_owner(rng.permutation(num_rows) % num_clients, num_clients)


def shards(
    labels: np.ndarray,
    num_clients: int,
    *,
    shards_per_client: int = 2,
    seed: int = 0,
    min_partition_size: int = 1,
) -> Partition:
    """Sorts the rows by label, cuts them into shards, and deals each client some shards.

    The pathological non-IID partition of McMahan et al. (arXiv:1602.05629), with 2 shards a client
    there. Shard sizes differ by at most one row.

    Args:
      labels: int[rows].
      num_clients: N.
      shards_per_client: Shards that each client receives.
      seed: Chooses the partition.
      min_partition_size: The fewest rows a client may have.

    Returns:
      A partition over N clients.

    Raises:
      ValueError: If there are fewer rows than shards, or an argument is out of range.

    Example:
      >>> labels = np.arange(12) % 3
      >>> partition = data.shards(labels, 3, shards_per_client=2)
      >>> partition.sizes.tolist()
      [4, 4, 4]
      >>> data.label_counts(labels, partition, 3).tolist()
      [[4, 0, 0], [0, 4, 0], [0, 0, 4]]
    """
    labels = class_labels(labels)
    num_clients, min_partition_size, seed = check_room(
        labels.size, num_clients, min_partition_size, seed
    )
    shards_per_client = partition_setting("shards_per_client", shards_per_client)
    num_shards = num_clients * shards_per_client
    if num_shards > labels.size:
        raise ValueError(
            f"{num_clients} clients x {shards_per_client} shards are {num_shards} shards, but "
            f"there are only {labels.size} rows: use fewer clients or fewer shards_per_client"
        )
    rng = random.generator(seed, "partition/shards")
    owner = np.empty(labels.size, np.int64)
    by_label = np.concatenate(rows_by_class(labels, rng))
    shard = np.arange(labels.size) * num_shards // labels.size
    owner[by_label] = rng.permutation(num_shards)[shard] // shards_per_client
    return repaired_partition(owner, labels, num_clients, min_partition_size, seed)


def classes_per_client(
    labels: np.ndarray,
    num_clients: int,
    *,
    classes_per_client: int = 2,
    seed: int = 0,
    min_partition_size: int = 1,
) -> Partition:
    """Gives each client a fixed number of classes, and divides each class evenly among its owners.

    The "#C = k" of NIID-Bench (Li et al., arXiv:2102.02079): client i has class i modulo the number
    of classes, and k - 1 others at random. Where there are fewer clients than classes, the second
    and later picks cover the classes left over first, so that every row has an owner.

    Args:
      labels: int[rows].
      num_clients: N.
      classes_per_client: k, at most the number of classes present.
      seed: Chooses the partition.
      min_partition_size: The fewest rows a client may have; rows that are moved to reach it may
        bring a further class.

    Returns:
      A partition over N clients.

    Raises:
      ValueError: If the clients cannot cover the classes, or an argument is out of range.

    Example:
      >>> labels = np.arange(12) % 3
      >>> partition = data.classes_per_client(labels, 3, classes_per_client=2)
      >>> partition.sizes.tolist()
      [4, 5, 3]
      >>> data.label_counts(labels, partition, 3).tolist()
      [[2, 0, 2], [1, 4, 0], [1, 0, 2]]
    """
    labels = class_labels(labels)
    num_clients, min_partition_size, seed = check_room(
        labels.size, num_clients, min_partition_size, seed
    )
    per_client = partition_setting("classes_per_client", classes_per_client)
    rng = random.generator(seed, "partition/classes_per_client")
    by_class = rows_by_class(labels, rng)
    has_class = _assign_classes(num_clients, len(by_class), per_client, rng)
    owner = np.empty(labels.size, np.int64)
    for k, rows in enumerate(by_class):
        owners = rng.permutation(np.flatnonzero(has_class[:, k]))
        owner[rows] = owners[np.arange(rows.size) * owners.size // rows.size]
    return repaired_partition(owner, labels, num_clients, min_partition_size, seed)


def _assign_classes(num_clients, num_classes, per_client, rng) -> np.ndarray:
    """Returns bool[N, K] with `per_client` classes in each row and none of the columns empty."""
    if per_client > num_classes:
        raise ValueError(
            f"classes_per_client={per_client}, but the labels have only {num_classes} classes"
        )
    if num_clients * per_client < num_classes:
        raise ValueError(
            f"{num_clients} clients x {per_client} classes cannot cover {num_classes} classes: "
            "raise num_clients or classes_per_client"
        )
    priority = rng.random((num_clients, num_classes))
    clients, classes = np.arange(num_clients), np.arange(num_classes)
    priority[clients, clients % num_classes] = -1.0
    priority[classes % num_clients, classes] = -1.0
    has_class = np.zeros((num_clients, num_classes), bool)
    picks = np.argpartition(priority, per_client - 1, axis=1)[:, :per_client]
    np.put_along_axis(has_class, picks, True, axis=1)
    return has_class


def quantity(
    labels: np.ndarray | int,
    num_clients: int,
    *,
    sigma: float = 1.0,
    seed: int = 0,
    min_partition_size: int = 1,
) -> Partition:
    """Deals shuffled rows into clients of log-normal size; label mixtures stay alike.

    Args:
      labels: int[rows], or the number of rows.
      num_clients: N.
      sigma: Standard deviation of the logarithm of the sizes; 0 gives equal sizes.
      seed: Chooses the partition.
      min_partition_size: The fewest rows a client may have.

    Returns:
      A partition over N clients.

    Raises:
      ValueError: If there are too few rows for the clients, or an argument is out of range.

    Example:
      >>> labels = np.arange(12) % 3
      >>> partition = data.quantity(labels, 3, sigma=0.5)
      >>> partition.sizes.tolist()
      [4, 3, 5]
      >>> data.label_counts(labels, partition, 3).tolist()
      [[1, 2, 1], [2, 0, 1], [1, 2, 2]]
    """
    num_rows = row_count(labels)
    num_clients, min_partition_size, seed = check_room(
        num_rows, num_clients, min_partition_size, seed
    )
    sigma = partition_setting("sigma", sigma)
    rng = random.generator(seed, "partition/quantity")
    log_size = sigma * rng.standard_normal(num_clients)
    edges = np.cumsum(np.exp(log_size - log_size.max()))
    ends = np.floor(edges / edges[-1] * num_rows).astype(np.int64)
    owner = np.searchsorted(ends, rng.permutation(num_rows), side="right")
    return repaired_partition(
        owner, np.zeros(num_rows, np.int64), num_clients, min_partition_size, seed
    )


def natural(
    labels: np.ndarray | int,
    num_clients: int | None = None,
    *,
    client_ids: np.ndarray,
    seed: int = 0,
    min_partition_size: int = 0,
) -> Partition:
    """Gives each client the rows that carry its id; clients are numbered by sorted id.

    Args:
      labels: int[rows], or the number of rows.
      num_clients: None for all clients, or how many of them to take. The rows of the others then
        belong to nobody.
      client_ids: [rows] integers or strings.
      seed: Chooses the clients that are taken; for one seed, those of a smaller number are among
        those of a larger one.
      min_partition_size: The fewest rows a client may have.

    Returns:
      A partition over the clients that occur, or the chosen ones.

    Raises:
      ValueError: If the ids do not fit the rows, there are fewer clients than `num_clients`, or a
        client is too small.

    Example:
      >>> ids = np.array(['ann', 'bob', 'ann', 'eve'])
      >>> partition = data.natural(4, client_ids=ids)
      >>> partition.sizes.tolist()
      [2, 1, 1]
    """
    min_partition_size = partition_setting("min_partition_size", min_partition_size)
    seed = partition_setting("seed", seed)
    ids, owner = unique_ids(client_ids, row_count(labels))
    chosen = chosen_clients(len(ids), num_clients, seed)
    partition = partition_by_owner(owner, len(ids))
    if len(chosen) < len(ids):
        partition = partition.subset(chosen)
    if partition.sizes.min() < min_partition_size:
        raise ValueError(
            f"natural client {ids[chosen[partition.sizes.argmin()]]} has {partition.sizes.min()} "
            f"rows, fewer than min_partition_size={min_partition_size}; natural rows do not move"
        )
    return partition


def chosen_clients(available: int, num_clients: int | None, seed: int) -> np.ndarray:
    """Returns which of the natural clients are taken: int64[num_clients], ascending.

    Raises:
      ValueError: If there are not so many.
    """
    if num_clients is None:
        return np.arange(available)
    num_clients = check_count("num_clients", num_clients)
    if num_clients > available:
        raise ValueError(
            f"the data have {available} natural clients, not {num_clients}: leave num_clients out "
            "to take all of them, or name another partition"
        )
    order = random.generator(seed, "partition/natural").permutation(available)
    return np.sort(order[:num_clients])
