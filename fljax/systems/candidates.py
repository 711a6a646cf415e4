"""Candidates: who begins to work next, where clients begin one by one.

Candidates are drawn uniformly from the clients, one after another, and the first of them who is
idle and online begins; so each idle client that is online has the same chance. What a candidate
would need, and whether it would be lost, is computed for many of them at once.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Set
from typing import NamedTuple

import numpy as np

from fljax.core import random
from fljax.systems.fleet import Fleet

# Candidates whose jobs are planned at once.
_BLOCK = 1024
# Candidates in a row that may be busy or offline before all clients are looked at.
TRIES = 64


class Beginner(NamedTuple):
    """A client that begins now.

    Attributes:
      client: Who.
      end: Seconds of simulated time at which its job ends, or is lost.
      lost: Whether it is lost.
    """

    client: int
    end: float
    lost: bool


# (seconds, busy clients, candidates considered so far) -> (who begins, or None; the candidates
# considered by then; where nobody begins, the next moment at which an idle client is online)
Draw = Callable[[float, Set[int], int], tuple[Beginner | None, int, float]]


def drawn_among(fleet: Fleet) -> Draw:
    """Returns a function that draws who begins; what it returns depends on its arguments alone.

    Args:
      fleet: The clients, of whom those with a batch to train on begin.

    Example:
      >>> from fljax.systems.candidates import drawn_among
      >>> from fljax.systems.devices import equal
      >>> from fljax.systems.fleet import Fleet
      >>> fleet = Fleet(equal(3, 0.5), None, np.array([4, 2, 10]), 0.0, 0.0, 0.0, seed=0)
      >>> draw = drawn_among(fleet)
      >>> draw(10.0, {0, 2}, 0)[0]
      Beginner(client=1, end=11.0, lost=False)
    """
    eligible = np.flatnonzero(fleet.steps > 0)
    block_of = functools.lru_cache(maxsize=4)(functools.partial(_Block, fleet, eligible))

    def draw(now: float, busy: Set[int], considered: int):
        for number in range(considered, considered + TRIES):
            block, place = block_of(number // _BLOCK), number % _BLOCK
            client = block.client[place]
            if client not in busy and block.is_online(place, now):
                return block.beginner(place, now), number + 1, math.inf
        return _of_all(fleet, now, busy, considered + TRIES)

    return draw


class _Block:
    """Candidates in a row: who they are, how long each would take, and who would be lost.

    When candidates are online is asked for many in a row, and is kept while the answer holds.
    """

    def __init__(self, fleet: Fleet, eligible: np.ndarray, block: int):
        number = block * _BLOCK + np.arange(_BLOCK)
        words = random.uniform(fleet.seed, "systems/begin", number)
        clients = eligible[np.floor(words * len(eligible)).astype(np.int64)]
        always = fleet._replace(availability=None)
        seconds, lost = always.ends(clients, 0.0, number)
        self._fleet, self._clients = fleet, clients
        self.client, self.seconds, self.lost = clients.tolist(), seconds.tolist(), lost.tolist()
        # what is known of each: from `asked` on, it is online next from `since` to `until`
        self._asked, self._since, self._until = ([math.inf] * _BLOCK for _ in range(3))

    def is_online(self, place: int, now: float) -> bool:
        """Returns whether a candidate is online."""
        if self._fleet.availability is None:
            return True
        if not self._asked[place] <= now < self._until[place]:
            self._ask(slice(place, place + TRIES), now)
        return self._since[place] <= now

    def _ask(self, places: slice, now: float) -> None:
        """Finds when candidates in a row are online next."""
        clients, availability = self._clients[places], self._fleet.availability
        since = np.array(availability.since(clients, now), np.float64)
        until, comes = np.full(len(clients), np.inf), np.isfinite(since)
        until[comes] = availability.until(clients[comes], since[comes])
        self._asked[places] = [now] * len(clients)
        self._since[places], self._until[places] = since.tolist(), until.tolist()

    def beginner(self, place: int, now: float) -> Beginner:
        """Returns a candidate that begins now, while it is online."""
        client, end, lost = self.client[place], now + self.seconds[place], self.lost[place]
        if self._fleet.availability is None:
            return Beginner(client, end, lost)
        until = self._until[place]
        return Beginner(client, min(end, until), lost or until < end)


def _of_all(fleet: Fleet, now: float, busy: Set[int], number: int):
    """Draws who begins from all who are idle and online; returns what a `Draw` does."""
    is_idle = fleet.steps > 0
    is_idle[list(busy)] = False
    idle = np.flatnonzero(is_idle)
    since = np.full(len(idle), now)
    if fleet.availability is not None:
        since = fleet.availability.since(idle, now)
    online = idle[since <= now]
    if not len(online):
        return None, number, float(np.min(since, initial=math.inf))
    word = float(random.uniform(fleet.seed, "systems/begin/all", number))
    client = online[[int(word * len(online))]]
    end, lost = fleet.ends(client, now, number)
    return Beginner(int(client[0]), float(end[0]), bool(lost[0])), number + 1, math.inf
