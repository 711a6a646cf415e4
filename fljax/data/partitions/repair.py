"""Moves rows so that every client has a minimum number of them, in bounded time."""

from __future__ import annotations

import numpy as np

from fljax.core import random
from fljax.data.dataset import Partition, partition_by_owner


def repaired_partition(
    owner: np.ndarray, labels: np.ndarray, num_clients: int, min_partition_size: int, seed: int
) -> Partition:
    """Returns the partition of these owners after rows moved to clients that have too few.

    The largest clients give, each down to a common level, and what they give is a random choice of
    their rows. A client that receives gets, as far as the rows given allow, labels in the mixture
    it has already; a client without any rows gets few different labels.

    Args:
      owner: int64[rows] client of each row.
      labels: int64[rows].
      num_clients: N.
      min_partition_size: The fewest rows a client may have; N times it is at most the rows.
      seed: Chooses the rows that move.
    """
    sizes = np.bincount(owner, minlength=num_clients)
    needed = np.maximum(min_partition_size - sizes, 0)
    if not needed.any():
        return partition_by_owner(owner, num_clients)
    rng = random.generator(seed, "partition/repair")
    pool = _rows_given(owner, sizes, _level_giving(sizes, needed.sum()), rng)
    slots = np.repeat(np.arange(num_clients), needed)
    wanted = _wanted_labels(slots, owner, labels, sizes, rng)
    rows, receivers = _match_by_label(pool, labels[pool], slots, wanted)
    owner = owner.copy()
    owner[rows] = receivers
    return partition_by_owner(owner, num_clients)


def _level_giving(sizes: np.ndarray, total: int) -> np.ndarray:
    """Returns int64[N] rows given, from the largest clients down to a level; they sum to total."""
    low, high = 0, int(sizes.max())
    while high - low > 1:
        level = (low + high) // 2
        low, high = (level, high) if np.maximum(sizes - level, 0).sum() >= total else (low, level)
    given = np.maximum(sizes - low, 0)
    # Giving down to `low` is a little too much: some of the givers keep one row more.
    spared = np.flatnonzero(given)[: given.sum() - total]
    given[spared] -= 1
    return given


def _rows_given(owner, sizes, given, rng) -> np.ndarray:
    """Returns the rows that leave: `given[i]` random rows of each client i."""
    order = rng.permutation(owner.size)
    order = order[np.argsort(owner[order], kind="stable")]
    rank = np.arange(owner.size) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return order[rank < np.repeat(given, sizes)]


def _wanted_labels(slots, owner, labels, sizes, rng) -> np.ndarray:
    """Returns the label wanted in each slot: that of a random row of its client, or -1 if none."""
    order = np.argsort(owner, kind="stable")
    start = np.cumsum(sizes) - sizes
    has_rows = sizes[slots] > 0
    position = start[slots] + (rng.random(slots.size) * sizes[slots]).astype(np.int64)
    return np.where(has_rows, labels[order[np.where(has_rows, position, 0)]], -1)


def _match_by_label(pool, pool_labels, slots, wanted) -> tuple[np.ndarray, np.ndarray]:
    """Pairs rows with slots, label by label as far as they go, the others in label order.

    Args:
      pool: int64[M] rows.
      pool_labels: int64[M] their labels.
      slots: int64[M] receiving clients.
      wanted: int64[M] labels wanted.

    Returns:
      (rows, receivers), both int64[M].
    """
    by_label = np.argsort(pool_labels, kind="stable")
    by_wanted = np.argsort(wanted, kind="stable")
    pool, pool_labels = pool[by_label], pool_labels[by_label]
    slots, wanted = slots[by_wanted], wanted[by_wanted]
    supply = _rank_in_run(pool_labels) < _count_of(pool_labels, wanted)
    demand = _rank_in_run(wanted) < _count_of(wanted, pool_labels)
    rest = np.sort(slots[~demand])
    return (
        np.concatenate([pool[supply], pool[~supply]]),
        np.concatenate([slots[demand], rest]),
    )


def _rank_in_run(values: np.ndarray) -> np.ndarray:
    """Returns each element's place among the equal elements of a sorted vector."""
    return np.arange(values.size) - np.searchsorted(values, values, side="left")


def _count_of(values: np.ndarray, among: np.ndarray) -> np.ndarray:
    """Returns how often each value occurs in a sorted vector."""
    return np.searchsorted(among, values, "right") - np.searchsorted(among, values, "left")
