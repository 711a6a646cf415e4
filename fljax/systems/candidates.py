"""Candidates: who begins to work next, where clients begin one by one.

Candidates are drawn uniformly from the clients, one after another, and the first of them who is
idle and online begins; so each idle client that is online has the same chance. What a candidate
would need, and whether it would be lost, is computed for many of them at once.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from fljax.core import random
from fljax.systems.fleet import Fleet
from fljax.systems.watch import Watch

# Candidates whose jobs are planned at once.
_BLOCK = 1024
# Candidates in a row that may be busy or offline before all clients are looked at.
TRIES = 256


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


# (seconds, busy clients, candidates considered so far, places) -> (who begin, at most so many, and
# are busy now; the candidates considered by then; where places stay empty, the next moment at which
# an idle client is online, otherwise -inf)
Draw = Callable[[float, set[int], int, int], tuple[list[Beginner], int, float]]


def drawn_among(fleet: Fleet) -> Draw:
    """Returns a function that draws who begins; what it returns depends on its arguments alone.

    Where nobody begins, no candidate was considered: nothing depends on how often it is called.

    Args:
      fleet: The clients, of whom those with a batch to train on begin.

    Example:
      >>> from fljax.systems.candidates import drawn_among
      >>> from fljax.systems.devices import equal
      >>> from fljax.systems.fleet import Fleet
      >>> fleet = Fleet(equal(3, 0.5), None, np.array([4, 2, 10]), 0.0, 0.0, 0.0, seed=0)
      >>> draw = drawn_among(fleet)
      >>> draw(10.0, {0, 2}, 0, 1)[0]
      [Beginner(client=1, end=11.0, lost=False)]
    """
    eligible = np.flatnonzero(fleet.steps > 0)
    watch = None
    if fleet.availability is not None:
        watch = Watch(fleet.availability, eligible)
    block_of = functools.lru_cache(maxsize=4)(functools.partial(_Block, fleet, eligible))

    def draw(now: float, busy: set[int], considered: int, places: int):
        found: list[Beginner] = []
        number, last = considered, considered + TRIES
        while len(found) < places and number < last:
            block, place = block_of(number // _BLOCK), number % _BLOCK
            number += 1
            client = block.client[place]
            if client not in busy and block.is_online(place, now):
                found.append(block.beginner(place, now))
                busy.add(client)
                last = number + TRIES
        if len(found) == places:
            return found, number, -math.inf
        others, comes = _of_all(fleet, watch, now, busy, number, places - len(found))
        found += others
        return found, number + len(others) if found else considered, comes

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


def _of_all(
    fleet: Fleet, watch: Watch | None, now: float, busy: set[int], number: int, places: int
):
    """Draws who begin from all who are idle and online.

    Returns:
      (at most so many as there are places, the next moment as a `Draw` says it).
    """
    if watch is None:
        is_idle = fleet.steps > 0
        is_idle[list(busy)] = False
        online = np.flatnonzero(is_idle)
    else:
        online = np.array(watch.idle(now, busy), np.int64)
    words = random.uniform(fleet.seed, "systems/begin/all", number, online)
    clients = online[np.argsort(words, kind="stable")[:places]]
    ends, lost = fleet.ends(clients, now, number + np.arange(len(clients)))
    busy.update(clients.tolist())
    found = list(map(Beginner, clients.tolist(), ends.tolist(), lost.tolist()))
    if len(found) == places:
        return found, -math.inf
    return found, math.inf if watch is None else watch.next(now, busy)
