"""Counts the rounds that the client whom a sampler takes most often takes part in."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fljax.core.sampler import Sampler, clients_of


def participations_of(sampler: Sampler, num_clients: int) -> Callable[[int], int] | None:
    """Returns what counts the most participations of a client in the first rounds of a run.

    Args:
      sampler: Of the run.
      num_clients: Size of the population.

    Returns:
      rounds -> the number, found by drawing the cohorts of so many rounds; None for a sampler that
      waits for what the rounds before have shown.

    Example:
      >>> from fljax.core.sampler import uniform
      >>> most = participations_of(uniform(num_clients=10, clients_per_round=10, seed=0), 10)
      >>> most(3)
      3
    """
    if sampler.feedback != "none":
        return None
    counts = np.zeros(num_clients, np.int64)
    most = [0]
    state = None

    def drawn(rounds: int) -> int:
        nonlocal state
        while len(most) <= rounds:
            state = sampler.init() if state is None else state
            selected, state = sampler.select(state, len(most) - 1)
            clients = np.unique(clients_of(selected))
            counts[clients] += 1
            most.append(max(most[-1], int(counts[clients].max(initial=0))))
        return most[rounds]

    return drawn
