"""DivFL: clients that together represent everybody, found by submodular maximization.

Balakrishnan et al. 2022, "Diverse client selection for federated learning via submodular
maximization" (ICLR 2022). With v_k a vector of client k, the cohort S is to minimize

    G(S) = sum over all k of min over i in S of |v_k - v_i|

The stochastic greedy algorithm (Mirzasoleiman et al. 2015, arXiv:1409.7938) adds one client after
another: of a few drawn at random, the one by which G falls most.

The paper's v_k are gradients of the clients, those of the last updates where new ones would cost
messages. Updates stay on the devices here, so v_k is what is known without training: a client's
distribution of labels, or any vector that is given in its place. As these do not change, cohorts
differ by the random draws alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fljax.core import random
from fljax.core.sampler import Sampler, checked_numbers
from fljax.core.values import COUNT, Field, checked

_COUNT = Field(None, int, COUNT)
_SWITCH = Field(None, bool)


def divfl(
    num_clients: int,
    clients_per_round: int,
    seed: int,
    labels: np.ndarray,
    drawn: int = 20,
    represented: int = 500,
    shares: bool = True,
) -> Sampler:
    """Draws clients one after another so that they represent the population.

    A draw finds `clients_per_round` x `drawn` x `represented` distances.

    Args:
      num_clients: N, size of the population.
      clients_per_round: m, size of a cohort.
      seed: Of the run.
      labels: [N, k] vectors of the clients, such as rows of each label.
      drawn: How many clients are drawn at random for each place of the cohort; as many as there
        are make the greedy algorithm.
      represented: Of how many clients, drawn at random in each round, G is the sum: of all where
        these are no more, else an estimate of it.
      shares: Whether each vector is divided by its sum, so that counts become a distribution.

    Raises:
      ValueError: If a number is out of range, or there are not N finite vectors.

    Example:
      >>> sampler = divfl(6, 2, seed=0, labels=np.eye(2)[[0, 0, 0, 1, 1, 1]], drawn=6)
      >>> sorted(client // 3 for client in sampler.select((), 0)[0].tolist())
      [0, 1]
    """
    num_clients, count, seed = checked_numbers(num_clients, clients_per_round, seed)
    drawn = checked("drawn", drawn, _COUNT)
    represented = checked("represented", represented, _COUNT)
    vectors = _vectors(labels, num_clients, checked("shares", shares, _SWITCH))

    def select(state, round):
        generator = random.generator(seed, "sampler/divfl", round)
        everybody = np.arange(num_clients)
        if num_clients > represented:
            everybody = generator.choice(num_clients, represented, replace=False)
        targets = vectors[everybody]
        distances = np.full(len(everybody), np.inf)
        chosen: list[int] = []
        for _ in range(count):
            # so many that enough are left without those that are in the cohort
            size = min(num_clients, drawn + len(chosen))
            some = generator.choice(num_clients, size, replace=False)
            some = some[~np.isin(some, chosen)][:drawn]
            closer = np.minimum(_distances(vectors[some], targets), distances)
            best = int(np.argmin(closer.sum(1)))
            distances = closer[best]
            chosen.append(int(some[best]))
        return np.array(chosen, np.int64), state

    return Sampler(lambda: (), select, count, separation=1)


def _distances(some: np.ndarray, all_of_them: np.ndarray) -> np.ndarray:
    """Returns float64[s, n] Euclidean distances."""
    squares = np.square(some).sum(1)[:, None] + np.square(all_of_them).sum(1)
    return np.sqrt(np.maximum(squares - 2 * some @ all_of_them.T, 0))


def _vectors(labels: Any, num_clients: int, shares: bool) -> np.ndarray:
    vectors = np.asarray(labels, np.float64)
    if vectors.ndim != 2 or len(vectors) != num_clients or not np.isfinite(vectors).all():
        raise ValueError(
            f"labels have shape {list(vectors.shape)}; there must be a row of finite numbers for "
            f"each of the {num_clients} clients."
        )
    if not shares:
        return vectors
    totals = vectors.sum(1, keepdims=True)
    return np.divide(vectors, totals, out=np.zeros_like(vectors), where=totals > 0)
