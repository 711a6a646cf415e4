"""Finds how often masks hide a sum for good, because too few clients are there to open it.

Whether a sum is opened follows from who came, and not from what they sent. Where noise is to hide
who came, it is no noise that hides this: a sum that is opened is as far from none as its messages
are long, all together. So it must hardly ever happen.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy


def refused_share(
    cohorts: np.ndarray, degree: int | None, threshold: float, vanishing: float
) -> np.ndarray:
    """Returns bounds of the share of rounds whose sum is not opened, though all messages arrived.

    Args:
      cohorts: Clients of a round, 1 or more.
      degree: Neighbours of each client; None for all.
      threshold: Share of the neighbours that must answer.
      vanishing: Share of clients that are lost after their upload.

    Example:
      >>> refused_share(np.array([1, 2, 100]), None, 2 / 3, vanishing=0.0).tolist()
      [1.0, 0.0, 0.0]
    """
    neighbours = cohorts - 1 if degree is None else np.minimum(degree, cohorts - 1)
    needed = np.ceil(threshold * neighbours - 1e-4)
    answers = scipy.stats.binom(neighbours, 1 - vanishing)
    too_few = scipy.stats.binom.cdf(1, cohorts, 1 - vanishing)
    return np.minimum(cohorts * answers.cdf(needed - 1) + too_few, 1)


def chance_of_refusal(
    share: Callable[[np.ndarray], np.ndarray], num_clients: int, rate: float
) -> float:
    """Returns a bound of the chance that one client decides whether a round's sum is opened.

    Args:
      share: (sizes of cohorts) -> bounds of the share of rounds that are refused.
      num_clients: Size of the population.
      rate: The probability that a client takes part.

    Example:
      >>> all_arrive = lambda cohorts: np.where(cohorts == 1, 1.0, 0.0)
      >>> [f"{chance_of_refusal(all_arrive, 1000, rate):.1e}" for rate in (0.005, 0.05)]
      ['1.7e-04', '1.5e-22']
    """
    cohorts = np.arange(2, num_clients + 1)  # of one client nothing is opened, and of none neither
    chance = scipy.stats.binom.pmf(cohorts, num_clients, rate) * cohorts / num_clients
    cohorts, chance = cohorts[chance > 1e-30], chance[chance > 1e-30]
    return float(chance @ np.minimum(share(cohorts) + share(cohorts - 1), 1))
