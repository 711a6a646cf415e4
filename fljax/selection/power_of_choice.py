"""Draws candidates by size and takes those whose last known loss is the largest.

Cho, Wang and Joshi 2020, "Client selection in federated learning: convergence analysis and
power-of-choice selection strategies" (arXiv:2010.01243), rpow-d: the variant that asks candidates
for nothing. Those that ask them, pow-d and cpow-d, decide on the devices; they are an algorithm,
`fljax.algorithms.power_of_choice`, behind the sampler "by_size(replacement=False)".
"""

from __future__ import annotations

import numpy as np

from fljax.core import random
from fljax.core.sampler import Sampler, checked_numbers
from fljax.core.values import COUNT, Field, checked
from fljax.selection.by_size import by_size
from fljax.selection.losses import FEEDBACK, mean_losses

_COUNT = Field(None, int, COUNT)


def rpow_d(
    num_clients: int,
    clients_per_round: int,
    seed: int,
    sizes: np.ndarray,
    candidates: int,
    feedback: str = "delayed",
) -> Sampler:
    """Draws candidates by size, without replacement, and takes those of the largest known loss.

    A client's known loss is the mean over its last local training, infinite before it took part;
    ties fall at random. With as many candidates as clients are taken it is sampling by size. It
    goes with `weighting="uniform"` of the algorithm, and is biased towards large losses on purpose.

    Args:
      num_clients: N, size of the population.
      clients_per_round: m, size of a cohort.
      seed: Of the run.
      sizes: int64[N] training rows; clients without any are never drawn.
      candidates: d, how many are drawn by size, from m to N.
      feedback: "immediate" as in the paper, or "delayed" by two rounds, so that nothing waits.

    Raises:
      ValueError: If a number is out of range, or fewer clients have rows than are to be drawn.

    Example:
      >>> sampler = rpow_d(5, 1, seed=0, sizes=np.full(5, 8), candidates=5)
      >>> told = {"client": np.arange(4), "loss": np.ones(4), "weight": np.full(4, 8)}
      >>> state = sampler.observe(sampler.init(), 0, told)
      >>> sampler.select(state, 3)[0].tolist()  # the one of which nothing is known
      [4]
    """
    num_clients, count, seed = checked_numbers(num_clients, clients_per_round, seed)
    candidates = checked("candidates", candidates, _COUNT)
    feedback = checked("feedback", feedback, FEEDBACK)
    if not count <= candidates <= num_clients:
        raise ValueError(
            f"candidates = {candidates}, of whom clients_per_round = {count} are taken, out of "
            f"{num_clients} clients. Choose a number from {count} to {num_clients}."
        )
    drawing = by_size(num_clients, candidates, seed, sizes, replacement=False)

    def select(losses, round):
        drawn, _ = drawing.select((), round)
        ties = random.bits(seed, "sampler/rpow_d/ties", round, drawn)
        return drawn[np.lexsort((ties, -losses[drawn]))[:count]], losses

    def observe(losses, round, statistics):
        clients, found = mean_losses(statistics)
        losses = losses.copy()
        losses[clients] = found
        return losses

    unknown = np.full(num_clients, np.inf)
    return Sampler(lambda: unknown, select, count, observe, feedback, separation=1)
