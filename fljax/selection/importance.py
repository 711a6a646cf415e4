"""Draws clients with given probabilities, and makes up for these: Horvitz-Thompson weights.

Horvitz and Thompson 1952: an update that is drawn with probability pi and counts 1 / pi estimates
the sum of all without bias, whatever the probabilities are. These are exact here: cohorts have one
client from each of m strata, into which the population is cut (Deville 1998).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fljax.core import random
from fljax.core.sampler import Sampler, Selection, checked_numbers
from fljax.core.values import shown
from fljax.selection.checks import checked_numbers_of_clients
from fljax.selection.draws import inclusion, one_of_each, strata


def importance(
    num_clients: int,
    clients_per_round: int,
    seed: int,
    sizes: np.ndarray,
    probabilities: str | Sequence[float] = "sizes",
) -> Sampler:
    """Draws clients in proportion to given numbers; updates count so that their mean is unbiased.

    With pi_i the probability that client i is in a cohort of m, and n_i its rows of n, its update
    counts for m (n_i / n) / pi_i. It goes with `weighting="uniform"` of the algorithm: the plain
    mean of the updates so scaled estimates the mean over the population weighted by rows, without
    bias. A client whose number is so large that it would be drawn more than once is in each cohort,
    and the others share the remaining places. In proportion to sizes no factor differs from 1
    unless this happens; "uniform" has the probabilities and factors of scheme II of Li et al. 2020
    (arXiv:1907.02189).

    The order in which clients are cut into strata is drawn once from the seed. Two of one stratum
    never meet in a cohort, which matters for the variance alone.

    Args:
      num_clients: N, size of the population.
      clients_per_round: m, size of a cohort.
      seed: Of the run.
      sizes: int64[N] training rows; clients without any are never drawn.
      probabilities: "sizes", "uniform", or float[N] numbers that the probabilities are proportional
        to, above 0 for all clients that have rows.

    Raises:
      ValueError: If a number is out of range, or a client that has rows could not be drawn.

    Example:
      >>> sampler = importance(3, 2, 0, np.array([1, 1, 2]), probabilities="uniform")
      >>> selection, _ = sampler.select((), 0)
      >>> selection.clients.tolist(), selection.scale.tolist()
      ([1, 2], [0.75, 1.5])
    """
    num_clients, count, seed = checked_numbers(num_clients, clients_per_round, seed)
    rows = checked_numbers_of_clients("sizes", sizes, num_clients, count, "importance")
    weights = _weights(probabilities, rows)
    pi = inclusion(weights, count)
    scale = np.divide(count * rows / rows.sum(), pi, out=np.zeros(num_clients), where=pi > 0)
    order = random.generator(seed, "sampler/importance/order").permutation(num_clients)
    certain = order[pi[order] == 1]
    others = order[(pi[order] > 0) & (pi[order] < 1)]
    left = count - len(certain)
    cut = strata(pi[others], left) if left else None

    def select(state, round):
        clients = certain
        if cut is not None:
            picks, turns = (
                random.uniform(seed, f"sampler/importance/{name}", round, np.arange(left))
                for name in ("picks", "turns")
            )
            clients = np.concatenate([certain, others[one_of_each(cut, picks, turns)]])
        return Selection(clients, scale[clients]), state

    return Sampler(lambda: (), select, count, separation=1, has_scale=True)


def _weights(probabilities: str | Sequence[float], rows: np.ndarray) -> np.ndarray:
    """Returns float64[N] numbers that the probabilities are proportional to, 0 without rows."""
    if isinstance(probabilities, str):
        if probabilities not in ("sizes", "uniform"):
            raise ValueError(
                f"probabilities = {shown(probabilities)}; choose 'sizes' or 'uniform', or give one "
                "number for each client."
            )
        return rows if probabilities == "sizes" else (rows > 0).astype(np.float64)
    weights = checked_numbers_of_clients("probabilities", probabilities, len(rows))
    if len(never := np.flatnonzero((weights == 0) & (rows > 0))):
        raise ValueError(
            f"probabilities[{never[0]}] = 0, but client {never[0]} has {rows[never[0]]:.0f} rows: "
            "no weights make up for a client that is never drawn. Give it a number above 0."
        )
    return np.where(rows > 0, weights, 0.0)
