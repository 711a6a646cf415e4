"""Draws Dirichlet partitions, in the incompatible meanings that papers and programs give the name.

`dirichlet` divides each class among the clients. The other two draw a label mixture for each
client, and differ in who gets a class while it lasts: `dirichlet_hsu` fills one client after
another, `dirichlet_per_client` lets all clients take turns. At alpha = 0.1, with 10 classes and 100
clients of 500 rows, a client's rows are as mixed as 1.2 equally frequent classes by the first, as
1.8 by the second: turns use up every class early, and whoever wants it still goes without.
"""

from __future__ import annotations

import numpy as np

from fljax.core import random
from fljax.core.values import Field, checked
from fljax.data.dataset import Partition
from fljax.data.partitions.mixtures import (
    by_classes,
    by_mixtures,
    checked_alpha,
    log_gamma_draws,
    one_after_another,
)
from fljax.data.partitions.partition_arguments import check_room, class_labels, rows_by_class
from fljax.data.partitions.repair import repaired_partition

_MAX_REDRAWS = 10


def dirichlet(
    labels: np.ndarray,
    num_clients: int,
    *,
    alpha: float = 0.5,
    self_balancing: bool = False,
    seed: int = 0,
    min_partition_size: int = 1,
) -> Partition:
    """Divides each class among the clients by a Dirichlet draw over clients.

    The meaning of Flower, NIID-Bench (Li et al., arXiv:2102.02079) and Yurochkin et al.
    (arXiv:1905.12022): for each class, p ~ Dir(alpha, ..., alpha) over the N clients, and client i
    receives the share p_i of the class. Sizes vary as well as label mixtures. Where a draw leaves a
    client below `min_partition_size`, up to ten further draws are tried, then rows move from the
    largest clients.

    Args:
      labels: int[rows].
      num_clients: N.
      alpha: Concentration; small is skewed, large is IID.
      self_balancing: Give a client no more of the next class once it holds rows / N rows.
      seed: Chooses the partition.
      min_partition_size: The fewest rows a client may have (Flower and NIID-Bench use 10).

    Returns:
      A partition over N clients.

    Raises:
      ValueError: If there are too few rows for the clients, or an argument is out of range.

    Example:
      >>> labels = np.arange(12) % 3
      >>> partition = data.dirichlet(labels, 3, alpha=0.5)
      >>> partition.sizes.tolist()
      [5, 3, 4]
      >>> data.label_counts(labels, partition, 3).tolist()
      [[2, 0, 3], [0, 3, 0], [2, 1, 1]]
    """
    checked("self_balancing", self_balancing, Field(False, bool))
    return by_class_draws(
        labels,
        num_clients,
        alpha,
        self_balancing,
        seed,
        min_partition_size,
        _MAX_REDRAWS + 1,
        "dirichlet",
    )


def by_class_draws(
    labels, num_clients, alpha, self_balancing, seed, min_partition_size, most_draws, name
) -> Partition:
    """Returns the partition of classes that are divided among the clients.

    Args:
      labels, num_clients, alpha, self_balancing, seed, min_partition_size: As for `dirichlet`.
      most_draws: After so many, rows move.
      name: Of the partition; its stream of random numbers.
    """
    labels = class_labels(labels)
    num_clients, min_partition_size, seed = check_room(
        labels.size, num_clients, min_partition_size, seed
    )
    alpha = checked_alpha(alpha)
    for draw in range(most_draws):
        rng = random.generator(seed, f"partition/{name}", draw)
        owner = _dirichlet_draw(labels, num_clients, alpha, self_balancing, rng)
        if np.bincount(owner, minlength=num_clients).min() >= min_partition_size:
            break
    return repaired_partition(owner, labels, num_clients, min_partition_size, seed)


def _dirichlet_draw(labels, num_clients, alpha, self_balancing, rng) -> np.ndarray:
    """Returns int64[rows] owners from one draw of every class's proportions."""
    owner = np.empty(labels.size, np.int64)
    sizes = np.zeros(num_clients, np.int64)
    for rows in rows_by_class(labels, rng):
        log_p = log_gamma_draws(rng, alpha, num_clients)
        if self_balancing:
            log_p[sizes * num_clients >= labels.size] = -np.inf
        edges = np.cumsum(np.exp(log_p - log_p.max()))
        ends = np.floor(edges / edges[-1] * rows.size).astype(np.int64)
        owner[rows] = np.searchsorted(ends, np.arange(rows.size), side="right")
        sizes += np.diff(ends, prepend=0)
    return owner


def dirichlet_hsu(
    labels: np.ndarray,
    num_clients: int,
    *,
    alpha: float = 0.5,
    seed: int = 0,
    min_partition_size: int = 1,
    rows_per_client: int | None = None,
) -> Partition:
    """Draws a label mixture for each client, Dirichlet over classes, and fills client by client.

    The procedure of Hsu et al. (arXiv:1909.06335): client i draws q_i ~ Dir(alpha p), p being the
    label distribution of all rows, and takes its rows / N rows by drawing classes from q_i before
    the next client takes any. Rows are drawn without replacement; a class that has run out is left
    out of all q_i, which are scaled up again. So nearly all clients get their mixture, and the last
    ones what is left. Clients are filled in a random order, so that numbers say nothing.

    Released programs that give alpha to every class, alpha (1, ..., 1), have the paper's alpha
    times the number of classes.

    Args:
      labels: int[rows].
      num_clients: N.
      alpha: Concentration, shared among the classes: with 10 equal classes, alpha = 1 is 0.1 each.
      seed: Chooses the partition.
      min_partition_size: The fewest rows a client may have; sizes differ by at most one anyway.
      rows_per_client: How many rows each client draws; None for all rows / N. Classes last longer
        where clients draw fewer, so that more of them get their mixture.

    Returns:
      A partition over N clients.

    Raises:
      ValueError: If there are too few rows for the clients, or an argument is out of range.

    Example:
      >>> labels = np.arange(12) % 3
      >>> partition = data.dirichlet_hsu(labels, 3, alpha=0.5)
      >>> partition.sizes.tolist()
      [4, 4, 4]
      >>> data.label_counts(labels, partition, 3).tolist()
      [[1, 3, 0], [3, 1, 0], [0, 0, 4]]
    """
    given = labels, num_clients, seed, min_partition_size, rows_per_client
    return by_mixtures(*given, by_classes(alpha), one_after_another, "dirichlet_hsu")


def dirichlet_per_client(
    labels: np.ndarray,
    num_clients: int,
    *,
    alpha: float = 0.5,
    seed: int = 0,
    min_partition_size: int = 1,
    rows_per_client: int | None = None,
) -> Partition:
    """Draws a label mixture for each client, Dirichlet over classes; clients take turns.

    Like `dirichlet_hsu`, but each client takes one row at a time, in a random order of clients, so
    that no client is left with the remainders alone. The clients are milder for it: a class that
    many of them want is used up when all are half full, and all of them go on with others.

    Args:
      labels: int[rows].
      num_clients: N.
      alpha: Concentration, shared among the classes: with 10 equal classes, alpha = 1 is 0.1 each.
      seed: Chooses the partition.
      min_partition_size: The fewest rows a client may have; sizes differ by at most one anyway.
      rows_per_client: How many rows each client draws; None for all rows / N. Classes last longer
        where clients draw fewer, so that more of them get their mixture.

    Returns:
      A partition over N clients.

    Raises:
      ValueError: If there are too few rows for the clients, or an argument is out of range.

    Example:
      >>> labels = np.arange(12) % 3
      >>> partition = data.dirichlet_per_client(labels, 3, alpha=0.5)
      >>> partition.sizes.tolist()
      [4, 4, 4]
      >>> data.label_counts(labels, partition, 3).tolist()
      [[0, 4, 0], [3, 0, 1], [1, 0, 3]]
    """

    def in_turns(order, num_rows):
        return np.tile(order, -(-num_rows // order.size))[:num_rows]

    given = labels, num_clients, seed, min_partition_size, rows_per_client
    return by_mixtures(*given, by_classes(alpha), in_turns, "dirichlet_per_client")
