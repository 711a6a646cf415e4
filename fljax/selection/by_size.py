"""Draws clients in proportion to their rows.

With replacement it is scheme I of Li et al. 2020, "On the convergence of FedAvg on non-IID data"
(arXiv:1907.02189): each of m draws takes client k with probability n_k / n, and the plain mean of
the updates is an unbiased estimate of the mean weighted by rows.
"""

from __future__ import annotations

import numpy as np

from fljax.core import random
from fljax.core.sampler import Sampler, checked_numbers
from fljax.core.values import Field, checked
from fljax.selection.checks import checked_numbers_of_clients
from fljax.selection.draws import distinct, places

_SWITCH = Field(None, bool)


def by_size(
    num_clients: int, clients_per_round: int, seed: int, sizes: np.ndarray, replacement: bool = True
) -> Sampler:
    """Draws clients with probabilities proportional to their numbers of rows.

    It goes with `weighting="uniform"` of the algorithm: sizes count in the draw, and must not count
    again in the mean. With replacement a client may stand in a cohort several times; each time it
    works anew, on batches in another order, where the paper counts its work several times.

    Args:
      num_clients: N, size of the population.
      clients_per_round: Size of a cohort.
      seed: Of the run.
      sizes: int64[N] training rows of each client; those without any are never drawn.
      replacement: Whether a client may be drawn again. Without, each draw is among those that are
        left, so that large clients come less often than in proportion, and no weights make up for
        it: for exact probabilities see `importance`.

    Raises:
      ValueError: If a number is out of range, or fewer clients have rows than are to be drawn.

    Example:
      >>> sampler = by_size(4, 2, seed=0, sizes=np.array([10, 0, 30, 60]))
      >>> drawn = np.concatenate([sampler.select((), round)[0] for round in range(1000)])
      >>> (np.bincount(drawn, minlength=4) / 2000).round(1).tolist()
      [0.1, 0.0, 0.3, 0.6]
    """
    num_clients, count, seed = checked_numbers(num_clients, clients_per_round, seed)
    replacement = checked("replacement", replacement, _SWITCH)
    least = 1 if replacement else count
    rows = checked_numbers_of_clients("sizes", sizes, num_clients, least, "by_size")
    cumulative = np.cumsum(rows)

    def again(state, round):
        points = random.uniform(seed, "sampler/by_size", round, np.arange(count))
        return places(cumulative, points), state

    def once(state, round):
        def uniforms(batch, numbers):
            return random.uniform(seed, "sampler/by_size", round, numbers, batch)

        return distinct(rows, cumulative, count, uniforms), state

    if replacement:
        return Sampler(lambda: (), again, count)
    return Sampler(lambda: (), once, count, separation=1)
