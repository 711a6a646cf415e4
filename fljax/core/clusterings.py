"""Clusterings of clients: how a round reports one, and how far two of them agree."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

_MEMBER = "cluster_"


def membership(cluster: jax.Array, num_clusters: int) -> dict[str, jax.Array]:
    """Returns the statistics of a job in a cluster, by which records count clusters' clients.

    Example:
      >>> membership(jnp.int32(1), 2)["cluster_1"].tolist()
      1
    """
    return {f"{_MEMBER}{n}": (cluster == n).astype(jnp.int32) for n in range(num_clusters)}


def is_clustered(names: Iterable[str]) -> bool:
    """Returns whether statistics of these names tell of clusters."""
    return any(name.startswith(_MEMBER) for name in names)


def clusters_of(stats: Mapping[str, Any]) -> np.ndarray | None:
    """Returns int[jobs], the clusters that statistics of jobs tell of.

    Args:
      stats: {name: [jobs]}.

    Returns:
      -1 for jobs that are in none, such as lost ones; None where there are no clusters.

    Example:
      >>> clusters_of({"cluster_0": np.array([1, 0, 0]), "cluster_1": np.array([0, 1, 0])})
      array([ 0,  1, -1])
    """
    if not is_clustered(stats):
        return None
    names = [name for name in stats if name.startswith(_MEMBER)]
    numbers = np.array([int(name.removeprefix(_MEMBER)) for name in names])
    member = np.stack([np.asarray(stats[name]) for name in names]) > 0
    return np.where(member.any(0), numbers[member.argmax(0)], -1)


def adjusted_rand_index(one: Any, other: Any) -> float:
    """Returns the adjusted Rand index of two clusterings of the same things.

    Of all pairs, those that are together in both, less what chance would give, of what there could
    be beyond chance (Hubert and Arabie 1985): 1 where both are the same, about 0 of random ones.

    Args:
      one: [n] the cluster of each, numbers or texts.
      other: [n] likewise.

    Raises:
      ValueError: For clusterings of different lengths, or of nothing.

    Example:
      >>> adjusted_rand_index([0, 0, 1, 1], ["b", "b", "a", "a"])
      1.0
      >>> round(adjusted_rand_index([0, 0, 1, 1], [0, 0, 1, 2]), 4)
      0.5714
    """
    one, other = np.asarray(one), np.asarray(other)
    if one.shape != other.shape or one.ndim != 1 or not one.size:
        raise ValueError(
            f"two clusterings have one cluster for each thing, not shapes {list(one.shape)} and "
            f"{list(other.shape)}"
        )
    rows, columns = (np.unique(labels, return_inverse=True)[1] for labels in (one, other))
    table = np.zeros((rows.max() + 1, columns.max() + 1))
    np.add.at(table, (rows, columns), 1)
    together, by_row, by_column, all_pairs = (
        (counts * (counts - 1) / 2).sum()
        for counts in (table, table.sum(1), table.sum(0), table.sum())
    )
    chance = by_row * by_column / max(all_pairs, 1)
    most = (by_row + by_column) / 2
    return float((together - chance) / (most - chance)) if most != chance else 1.0
