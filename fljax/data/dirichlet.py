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
from fljax.data.dataset import Partition, partition_by_owner
from fljax.data.partition_arguments import (
    check_room,
    class_labels,
    partition_setting,
    rows_by_class,
)
from fljax.data.repair import repaired_partition

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
    alpha = _checked_alpha(alpha)
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
        log_p = _log_gamma_draws(rng, alpha, num_clients)
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

    def one_after_another(order, num_rows):
        sizes = np.full(order.size, num_rows // order.size)
        sizes[: num_rows % order.size] += 1
        return np.repeat(order, sizes)

    return _by_mixtures(
        labels,
        num_clients,
        alpha,
        seed,
        min_partition_size,
        rows_per_client,
        one_after_another,
        "dirichlet_hsu",
    )


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

    return _by_mixtures(
        labels,
        num_clients,
        alpha,
        seed,
        min_partition_size,
        rows_per_client,
        in_turns,
        "dirichlet_per_client",
    )


def _by_mixtures(
    labels, num_clients, alpha, seed, min_partition_size, rows_per_client, places, name
) -> Partition:
    """Returns the partition of clients that draw rows by a mixture of their own.

    Args:
      labels, num_clients, alpha, seed, min_partition_size, rows_per_client: As for
        `dirichlet_hsu`.
      places: (clients in a random order, number of rows) -> the client of each draw, in turn.
      name: Of the partition; its stream of random numbers.
    """
    labels = class_labels(labels)
    num_clients, min_partition_size, seed = check_room(
        labels.size, num_clients, min_partition_size, seed
    )
    alpha = _checked_alpha(alpha)
    rng = random.generator(seed, f"partition/{name}")
    by_class = rows_by_class(labels, rng)
    left = np.array([rows.size for rows in by_class])
    log_q = np.stack(
        [_log_gamma_draws(rng, alpha * n / labels.size, num_clients) for n in left], axis=1
    )
    drawn = labels.size
    if rows_per_client is not None:
        drawn = num_clients * _checked_rows(rows_per_client, labels.size // num_clients)
    slots = places(rng.permutation(num_clients), drawn)
    chosen = _draw_without_replacement(log_q, slots, left, rng)
    owner = np.full(labels.size, num_clients)
    for k, rows in enumerate(by_class):
        takers = slots[chosen == k]
        owner[rows[: takers.size]] = takers
    if drawn == labels.size:
        return partition_by_owner(owner, num_clients)
    return partition_by_owner(owner, num_clients + 1).subset(np.arange(num_clients))


def _draw_without_replacement(log_q, slots, left, rng) -> np.ndarray:
    """Draws a class for each slot in turn, from classes that have rows left.

    The first class to run out is found, every slot up to that moment is final, and the later slots
    that had chosen the class draw again from what is left: the same distribution as drawing one
    slot after another, in at most as many steps as there are classes.

    Args:
      log_q: float64[N, K] unnormalized log-probabilities of each client.
      slots: int64[slots], the client of each slot, in the order of the draws.
      left: int64[K] rows of each class; they sum to the number of slots at least.
      rng: NumPy generator.

    Returns:
      int64[slots] class of each slot; class k occurs left[k] times at most.
    """
    num_classes = len(left)
    open_classes = np.ones(num_classes, bool)
    chosen = _draw_classes(log_q, slots, open_classes, rng)
    for _ in range(num_classes):
        order = np.argsort(chosen, kind="stable")
        count = np.bincount(chosen, minlength=num_classes)
        start = np.cumsum(count) - count
        over = np.flatnonzero(count > left)
        if not over.size:
            break
        # The slot at which each overdrawn class is asked for one row too many.
        moment = order[start[over] + left[over]]
        first = over[np.argmin(moment)]
        open_classes[first] = False
        again = order[start[first] + left[first] : start[first] + count[first]]
        chosen[again] = _draw_classes(log_q, slots[again], open_classes, rng)
    return chosen


def _draw_classes(log_q, slots, open_classes, rng) -> np.ndarray:
    """Returns int64[slots] classes, drawn from each slot's client restricted to open classes."""
    clients, which = np.unique(slots, return_inverse=True)
    log_p = np.where(open_classes, log_q[clients], -np.inf)
    edges = np.cumsum(np.exp(log_p - log_p.max(axis=1, keepdims=True)), axis=1)
    edges /= edges[:, -1:]
    u = rng.random(slots.size)
    # Edges after the last class with a chance equal one, which a uniform draw below one never
    # passes; a class without a chance has the edge of the class before it.
    chosen = np.zeros(slots.size, np.int64)
    for k in range(len(open_classes) - 1):
        chosen += u >= edges[which, k]
    return chosen


def _log_gamma_draws(rng, concentration: float, size: int) -> np.ndarray:
    """Returns float64[size] logarithms of Gamma(concentration, 1) draws.

    At small concentrations the draws themselves underflow, and normalizing them gives 0 / 0; so
    Gamma(a) is drawn as Gamma(a + 1) U^(1/a) (Marsaglia and Tsang, 2000), in logarithms.
    """
    return np.log(rng.gamma(concentration + 1.0, size=size)) - (
        rng.standard_exponential(size) / concentration
    )


def _checked_rows(rows_per_client: int, most: int) -> int:
    rows = partition_setting("rows_per_client", rows_per_client)
    if rows > most:
        raise ValueError(
            f"rows_per_client = {rows}, but the data have {most} rows for each client: take fewer "
            "rows or fewer clients"
        )
    return rows


def _checked_alpha(alpha: float) -> float:
    alpha = partition_setting("alpha", alpha)
    if not 1e-9 <= alpha <= 1e9:
        raise ValueError(f"alpha must lie between 1e-9 and 1e9, not {alpha}")
    return alpha
