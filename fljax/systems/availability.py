"""Availability: when the clients' devices can work."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Availability(NamedTuple):
    """Says of clients, at moments of simulated time, whether they are online.

    All three functions take int64[n] clients and float64[n] (or one) seconds, and cost what n asks
    for, never what the population does.

    Attributes:
      online: (clients, seconds) -> bool[n].
      until: (clients, seconds) -> float64[n], when clients that are online go offline; inf: never.
      since: (clients, seconds) -> float64[n], the first moment from then on at which clients are
        online: the moment itself for those who are; inf if never again.

    Example:
      >>> from fljax.systems.availability import always
      >>> always().online(np.array([3, 5]), 60.0).tolist()
      [True, True]
    """

    online: Callable[[np.ndarray, np.ndarray | float], np.ndarray]
    until: Callable[[np.ndarray, np.ndarray | float], np.ndarray]
    since: Callable[[np.ndarray, np.ndarray | float], np.ndarray]


def always() -> Availability:
    """Lets all clients be online at all times."""

    def moments(clients, seconds):
        return np.broadcast_to(np.asarray(seconds, np.float64), np.shape(clients))

    return Availability(
        online=lambda clients, seconds: np.ones(np.shape(clients), bool),
        until=lambda clients, seconds: np.full(np.shape(clients), np.inf),
        since=moments,
    )
