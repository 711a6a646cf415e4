"""Draws one client from each of m groups that share the population evenly: clustered sampling.

Fraboni et al. 2021, "Clustered sampling: low-variance and improved representativity for clients
selection in federated learning" (arXiv:2105.05883). Each client has m n_i of m n balls, n_i being
its rows; they are put into m urns of n balls, and each urn draws one. Whatever is in which urn, the
plain mean of the updates is an unbiased estimate of the mean weighted by rows, at a variance no
larger than that of drawing by size; how the urns are filled decides how much is gained.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fljax.core import random
from fljax.core.sampler import Sampler, checked_numbers
from fljax.core.values import Field, checked, shown
from fljax.selection.checks import checked_numbers_of_clients
from fljax.selection.draws import places

_BY = Field(None, str, ("sizes", "labels"))
# A matrix of distances between so many takes 400 MB.
_MOST_COMPARED = 10_000


class _Urns(NamedTuple):
    """The contents of the urns, one after another: int64[S] clients, float64[S] balls in urns."""

    clients: np.ndarray
    balls: np.ndarray


def clustered(
    num_clients: int,
    clients_per_round: int,
    seed: int,
    sizes: np.ndarray,
    labels: np.ndarray | None = None,
    by: str = "sizes",
) -> Sampler:
    """Draws one client from each of `clients_per_round` urns.

    It goes with `weighting="uniform"` of the algorithm. A client that lies in several urns may
    stand in a cohort several times.

    By sizes (Algorithm 1) the urns are filled with clients by falling size, one urn after another.
    By labels (Algorithm 2) similar clients come into one urn: Ward's hierarchical clustering, on
    the angles between vectors of the clients, is cut into the largest groups that fit into an urn;
    the m largest groups have an urn each, and the clients of the others fill what is left. Clients
    of more than n balls fill urns of their own first. The paper compares clients by their last
    updates, which stay on the devices here: what is compared is their label counts, or any vector
    that is given in their place. (The authors' code hands the matrix of angles to Ward's method as
    if its rows were points.)

    Args:
      num_clients: N, size of the population.
      clients_per_round: m, size of a cohort.
      seed: Of the run.
      sizes: int64[N] training rows; clients without any are never drawn.
      labels: [N, k] numbers by which clients are compared, such as rows of each label.
      by: "sizes" or "labels".

    Raises:
      ValueError: If a number is out of range, no client has rows, or there are no labels to go by.

    Example:
      >>> sampler = clustered(4, 2, 0, np.array([5, 5, 5, 5]), np.eye(2)[[0, 1, 0, 1]], by="labels")
      >>> sorted(client % 2 for client in sampler.select((), 0)[0].tolist())
      [0, 1]
    """
    num_clients, count, seed = checked_numbers(num_clients, clients_per_round, seed)
    by = checked("by", by, _BY)
    rows = checked_numbers_of_clients("sizes", sizes, num_clients, 1, "clustered")
    balls = count * rows / rows.sum()
    urns = _by_size(balls) if by == "sizes" else _by_labels(balls, count, _vectors(labels, rows))
    cumulative = np.cumsum(urns.balls)

    def select(state, round):
        points = np.arange(count) + random.uniform(
            seed, "sampler/clustered", round, np.arange(count)
        )
        return urns.clients[places(cumulative, points / count)], state

    return Sampler(lambda: (), select, count)


def _by_size(balls: np.ndarray) -> _Urns:
    """Fills urns one after another with clients by falling size."""
    order = np.argsort(-balls, kind="stable")
    return _Urns(order, balls[order])


def _by_labels(balls: np.ndarray, count: int, vectors: np.ndarray) -> _Urns:
    """Puts similar clients into one urn."""
    whole = np.floor(balls + 1e-9)
    large = np.repeat(np.arange(len(balls)), whole.astype(np.int64))
    rest = np.where(balls - whole > 1e-9, balls - whole, 0.0)
    clients = np.flatnonzero(rest)
    urns = count - len(large)
    groups = [clients[group] for group in _groups(rest[clients], vectors[clients])]
    groups.sort(key=lambda group: -rest[group].sum())
    own = groups[:urns]
    others = np.concatenate([np.zeros(0, np.int64), *groups[urns:]])
    owned = np.concatenate([np.zeros(0, np.int64), *own])
    urn_of = np.repeat(np.arange(len(own)), [len(group) for group in own])
    # the others lie in a row, which is cut where a client ends or an urn is full
    ends = np.cumsum(rest[others])
    full = np.cumsum([1 - rest[group].sum() for group in own])
    cuts = np.union1d(ends, full[full < ends[-1]]) if len(others) else ends
    pieces = np.diff(cuts, prepend=0.0)
    middles = cuts - pieces / 2
    clients = np.concatenate([owned, others[np.searchsorted(ends, middles)]])
    urn_of = np.append(urn_of, np.searchsorted(full, middles))
    order = np.argsort(urn_of, kind="stable")
    in_urns = np.concatenate([rest[owned], pieces])
    return _Urns(
        np.concatenate([large, clients[order]]),
        np.concatenate([np.ones(len(large)), in_urns[order]]),
    )


def _groups(balls: np.ndarray, vectors: np.ndarray) -> list[np.ndarray]:
    """Returns the largest groups of Ward's tree that hold no more than an urn."""
    from scipy.cluster.hierarchy import ward
    from scipy.spatial.distance import pdist

    if len(balls) < 2:
        return [np.arange(len(balls))] if len(balls) else []
    angles = np.arccos(np.clip(1 - pdist(vectors, "cosine"), -1, 1))
    groups: list[np.ndarray | None] = [np.array([client]) for client in range(len(balls))]
    for first, second in ward(angles)[:, :2].astype(np.int64):
        pair = groups[first], groups[second]
        together = None
        if pair[0] is not None and pair[1] is not None:
            merged = np.concatenate(pair)
            if balls[merged].sum() <= 1 + 1e-9:
                together = merged
                groups[first] = groups[second] = np.zeros(0, np.int64)
        groups.append(together)
    return [group for group in groups if group is not None and len(group)]


def _vectors(labels: np.ndarray | None, rows: np.ndarray) -> np.ndarray:
    """Returns float64[N, k] vectors, none of them zero where clients have rows."""
    if labels is None:
        raise ValueError(
            "by = 'labels', but there are no labels: the task has no classes. Give labels, or set "
            "by = 'sizes'."
        )
    vectors = np.asarray(labels, np.float64)
    if vectors.ndim != 2 or len(vectors) != len(rows) or not np.isfinite(vectors).all():
        raise ValueError(
            f"labels have shape {list(vectors.shape)}; there must be a row of finite numbers for "
            f"each of the {len(rows)} clients."
        )
    if len(rows) > _MOST_COMPARED:
        raise ValueError(
            f"by = 'labels' compares all pairs of {len(rows)} clients; it does so for "
            f"{_MOST_COMPARED} at most. Set by = 'sizes'."
        )
    if len(zero := np.flatnonzero(~vectors.any(1) & (rows > 0))):
        raise ValueError(
            f"labels[{zero[0]}] = {shown(vectors[zero[0]].tolist())} has no direction, but client "
            f"{zero[0]} has rows. Give it a number other than 0."
        )
    return vectors
