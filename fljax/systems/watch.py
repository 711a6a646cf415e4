"""A watch over clients: who is online as simulated time goes on, without asking all again."""

from __future__ import annotations

import heapq
import math
from collections.abc import Set

import numpy as np

from fljax.systems.availability import Availability


class Watch:
    """Knows which of some clients are online, at moments that do not go back.

    All are asked once, as it begins; then only those whose turn has come or is over. It begins anew
    where time goes back, as where a plan is made a second time.

    Args:
      availability: When clients are online.
      clients: int64[n] who is watched.

    Example:
      >>> from fljax.systems.intervals import intervals
      >>> from fljax.systems.watch import Watch
      >>> shifts = intervals(np.array([0.0, 5]), np.array([4.0, 9]), np.array([0, 1, 2]))
      >>> watch = Watch(shifts, np.arange(2))
      >>> watch.idle(1.0), watch.next(1.0), watch.idle(6.0)
      ([0], 5.0, [1])
    """

    def __init__(self, availability: Availability, clients: np.ndarray):
        self._availability, self._clients = availability, clients
        self._now = math.inf
        # {client: when it goes offline}, and heaps of (when it goes offline, comes online; client)
        self._online: dict[int, float] = {}
        self._leaving: list[tuple[float, int]] = []
        self._coming: list[tuple[float, int]] = []

    def idle(self, now: float, busy: Set[int] = frozenset()) -> list[int]:
        """Returns the clients that are online and not busy, in their order."""
        self._advance(now)
        return sorted(self._online.keys() - busy)

    def next(self, now: float, busy: Set[int] = frozenset()) -> float:
        """Returns the next moment at which a client that is offline and not busy comes; or inf."""
        self._advance(now)
        aside = []
        while self._coming and self._coming[0][1] in busy:
            aside.append(heapq.heappop(self._coming))
        moment = self._coming[0][0] if self._coming else math.inf
        for entry in aside:
            heapq.heappush(self._coming, entry)
        return moment

    def _advance(self, now: float) -> None:
        if now < self._now:
            self._online, self._leaving, self._coming = {}, [], []
            self._place(self._clients, now)
        self._now = now
        # who comes may be gone again by now, and come later
        while due := [*_popped(self._leaving, now), *_popped(self._coming, now)]:
            for client in due:
                self._online.pop(client, None)
            self._place(np.array(due, np.int64), now)

    def _place(self, clients: np.ndarray, now: float) -> None:
        """Asks clients when they are online next, and keeps the answers."""
        since = np.array(self._availability.since(clients, now), np.float64)
        here = since <= now
        until = self._availability.until(clients[here], now)
        for client, moment in zip(clients[here].tolist(), until.tolist(), strict=True):
            self._online[client] = moment
            heapq.heappush(self._leaving, (moment, client))
        comes = ~here & np.isfinite(since)
        entries = list(zip(since[comes].tolist(), clients[comes].tolist(), strict=True))
        if len(entries) > len(self._coming):
            self._coming += entries
            heapq.heapify(self._coming)
        else:
            for entry in entries:
                heapq.heappush(self._coming, entry)


def _popped(heap: list[tuple[float, int]], now: float) -> list[int]:
    """Takes the clients off a heap whose moment has come."""
    due = []
    while heap and heap[0][0] <= now:
        due.append(heapq.heappop(heap)[1])
    return due
