"""Lets clients draw their rows by a label mixture of their own, without replacement.

A mixture says how likely a client's next row is of each class, as long as every class has rows;
`Mixtures` also says what becomes of it once a class has none left.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from fljax.core import random
from fljax.data.ownership import Partition, partition_by_owner
from fljax.data.partitions.partition_arguments import (
    check_room,
    class_labels,
    partition_setting,
    rows_by_class,
)


class Mixtures(NamedTuple):
    """The label mixtures of N clients over K classes.

    Attributes:
      first: (open bool[K], clients int[M]) -> float64[M, K] logarithms of the chances of each
        class, not normalized, -inf for those that are not open.
      instead: (open bool[K], clients int[M], closed: number of a class) -> the same of a draw that
        fell on a class which had closed.
    """

    first: Callable[[np.ndarray, np.ndarray], np.ndarray]
    instead: Callable[[np.ndarray, np.ndarray, int], np.ndarray]


# (row counts int[K] of the classes, N, NumPy generator, the classes int[K]) -> mixtures
Draw = Callable[[np.ndarray, int, np.random.Generator, np.ndarray], Mixtures]


def by_classes(alpha: float) -> Draw:
    """Draws q ~ Dir(alpha p) for each client, p being the label distribution of all rows."""
    alpha = checked_alpha(alpha)

    def draw(counts, num_clients, rng, classes):
        shares = [alpha * n / counts.sum() for n in counts]
        return flat(
            np.stack([log_gamma_draws(rng, share, num_clients) for share in shares], axis=1)
        )

    return draw


def flat(log_q: np.ndarray) -> Mixtures:
    """Returns mixtures in which a class that has closed leaves its share to all others.

    Args:
      log_q: float64[N, K] unnormalized log-probabilities of each client.
    """

    def first(open_classes, clients):
        return np.where(open_classes, log_q[clients], -np.inf)

    return Mixtures(first, lambda open_classes, clients, closed: first(open_classes, clients))


def one_after_another(order: np.ndarray, num_rows: int) -> np.ndarray:
    """Returns the client of each draw where one is filled before the next one begins."""
    sizes = np.full(order.size, num_rows // order.size)
    sizes[: num_rows % order.size] += 1
    return np.repeat(order, sizes)


def by_mixtures(
    labels, num_clients, seed, min_partition_size, rows_per_client, draw: Draw, places, name: str
) -> Partition:
    """Returns the partition of clients that draw rows by a mixture of their own.

    Args:
      labels, num_clients, seed, min_partition_size, rows_per_client: As for `dirichlet_hsu`.
      draw: Of the mixtures.
      places: (clients in a random order, number of rows) -> the client of each draw, in turn.
      name: Of the partition; its stream of random numbers.
    """
    labels = class_labels(labels)
    num_clients, min_partition_size, seed = check_room(
        labels.size, num_clients, min_partition_size, seed
    )
    rng = random.generator(seed, f"partition/{name}")
    by_class = rows_by_class(labels, rng)
    left = np.array([rows.size for rows in by_class])
    classes = np.array([labels[rows[0]] for rows in by_class])
    mixtures = draw(left, num_clients, rng, classes)
    drawn = labels.size
    if rows_per_client is not None:
        drawn = num_clients * _checked_rows(rows_per_client, labels.size // num_clients)
    slots = places(rng.permutation(num_clients), drawn)
    chosen = _draw_without_replacement(mixtures, slots, left, rng)
    owner = np.full(labels.size, num_clients)
    for k, rows in enumerate(by_class):
        takers = slots[chosen == k]
        owner[rows[: takers.size]] = takers
    if drawn == labels.size:
        return partition_by_owner(owner, num_clients)
    return partition_by_owner(owner, num_clients + 1).subset(np.arange(num_clients))


def _draw_without_replacement(
    mixtures: Mixtures, slots: np.ndarray, left: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Draws a class for each slot in turn, from classes that have rows left.

    The first class to run out is found, every slot up to that moment is final, and the later slots
    that had chosen the class draw again from what is left: the same distribution as drawing one
    slot after another, in at most as many steps as there are classes.

    Args:
      mixtures: Of N clients over K classes.
      slots: int64[slots], the client of each slot, in the order of the draws.
      left: int64[K] rows of each class; they sum to the number of slots at least.
      rng: NumPy generator.

    Returns:
      int64[slots] class of each slot; class k occurs left[k] times at most.
    """
    num_classes = len(left)
    open_classes = np.ones(num_classes, bool)
    clients, which = np.unique(slots, return_inverse=True)
    chosen = _draw_classes(mixtures.first(open_classes, clients), which, rng)
    for _ in range(num_classes):
        order = np.argsort(chosen, kind="stable")
        count = np.bincount(chosen, minlength=num_classes)
        start = np.cumsum(count) - count
        over = np.flatnonzero(count > left)
        if not over.size:
            break
        # The slot at which each overdrawn class is asked for one row too many.
        moment = order[start[over] + left[over]]
        closed = over[np.argmin(moment)]
        open_classes[closed] = False
        again = order[start[closed] + left[closed] : start[closed] + count[closed]]
        clients, which = np.unique(slots[again], return_inverse=True)
        chosen[again] = _draw_classes(mixtures.instead(open_classes, clients, closed), which, rng)
    return chosen


def _draw_classes(log_p: np.ndarray, which: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Returns int64[slots] classes, drawn by the row of log_p that belongs to each slot."""
    edges = np.cumsum(np.exp(log_p - log_p.max(axis=1, keepdims=True)), axis=1)
    edges /= edges[:, -1:]
    u = rng.random(which.size)
    # Edges after the last class with a chance equal one, which a uniform draw below one never
    # passes; a class without a chance has the edge of the class before it.
    chosen = np.zeros(which.size, np.int64)
    for k in range(log_p.shape[1] - 1):
        chosen += u >= edges[which, k]
    return chosen


def log_gamma_draws(rng: np.random.Generator, concentration: float, size) -> np.ndarray:
    """Returns float64 of this size: logarithms of Gamma(concentration, 1) draws.

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


def checked_alpha(alpha: float, name: str = "alpha") -> float:
    """Returns the concentration of a Dirichlet distribution; refuses what is out of range."""
    alpha = partition_setting("alpha", alpha)
    if not 1e-9 <= alpha <= 1e9:
        raise ValueError(f"{name} must lie between 1e-9 and 1e9, not {alpha}")
    return alpha
