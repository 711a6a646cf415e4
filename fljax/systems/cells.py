"""Availability by formula: time is cut into cells, and in each a client is online once or never.

What a client does in a cell is a function of (seed, client, cell), so nothing is kept of clients.
When a client comes and goes is found by looking at cell after cell, of all clients that are asked
for at once, more of them the longer it takes.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fljax.systems.availability import Availability
from fljax.systems.intervals import whole_ticks

# Where nothing changes in so many cells, nothing ever does: 7 years of hours.
MOST_CELLS = 1 << 16
NEVER = 1 << 62
_LARGEST = 4096


def first_cell(
    clients: np.ndarray,
    cells: np.ndarray,
    wanted: Callable[[np.ndarray, np.ndarray], np.ndarray],
    width: int = 8,
) -> np.ndarray:
    """Returns int64[n] the first cell, from given ones on, of which something holds; NEVER if none.

    Args:
      clients: int64[n].
      cells: int64[n] where to begin.
      wanted: (int64[m, 1] clients, int64[m, k] cells) -> bool[m, k].
      width: Cells to look at first; then twice as many, and so on.

    Example:
      >>> from fljax.systems.cells import first_cell
      >>> first_cell(np.array([3, 5]), np.array([4, 5]), lambda who, cell: cell % who == 0).tolist()
      [6, 5]
    """
    found = np.full(np.shape(clients), NEVER)
    left, looked = np.arange(len(found)), 0
    while len(left) and looked < MOST_CELLS:
        ahead = cells[left, None] + (looked + np.arange(width))
        holds = wanted(clients[left, None], ahead)
        some = holds.any(axis=1)
        found[left[some]] = ahead[some, np.argmax(holds[some], axis=1)]
        left, looked, width = left[~some], looked + width, min(2 * width, _LARGEST)
    return found


def by_slots(
    online: Callable[[np.ndarray, np.ndarray], np.ndarray], slot_seconds: float
) -> Availability:
    """Lets clients be online in slots of time, all of one length.

    Args:
      online: (clients, slots) -> bool of their broadcast shape; slot s begins at s slot_seconds.
      slot_seconds: Rounded to 2^-20 seconds.

    Example:
      >>> from fljax.systems.cells import by_slots
      >>> shifts = by_slots(lambda client, slot: slot % 3 == client % 3, slot_seconds=60)
      >>> shifts.since(np.array([0, 1]), 30.0).tolist(), shifts.until(np.array([0]), 30.0).tolist()
      ([30.0, 60.0], [60.0])
    """
    length = whole_ticks(slot_seconds)

    def place(clients, seconds):
        clients = np.asarray(clients)
        seconds = np.broadcast_to(np.asarray(seconds, np.float64), clients.shape)
        return clients, seconds, np.floor_divide(seconds, length).astype(np.int64)

    def moment(slots):
        return np.where(slots < NEVER, slots * length, np.inf)

    def is_online(clients, seconds):
        clients, _, slots = place(clients, seconds)
        return online(clients, slots)

    def until(clients, seconds):
        clients, seconds, slots = place(clients, seconds)
        ends = moment(first_cell(clients, slots, lambda who, slot: ~online(who, slot)))
        return np.maximum(ends, seconds)  # the moment itself, of who is offline

    def since(clients, seconds):
        clients, seconds, slots = place(clients, seconds)
        return np.maximum(moment(first_cell(clients, slots, online)), seconds)

    return Availability(is_online, until, since)


def by_windows(
    window: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]],
    length: float,
    origin: Callable[[np.ndarray], np.ndarray],
) -> Availability:
    """Lets clients be online in one window a day, or another length of time.

    Args:
      window: (clients, days) -> (starts, ends), seconds since the day began, of the broadcast
        shape, from 0 to below `length`; where none starts before it ends, there is no window.
      length: Seconds of a day, rounded to 2^-20 seconds.
      origin: clients -> seconds at which their day 0 begins.

    Example:
      >>> from fljax.systems.cells import by_windows
      >>> lunch = by_windows(lambda who, day: (12 + 0 * day, 13 + 0 * day), 24, lambda who: who)
      >>> lunch.since(np.array([0, 2]), 13.5).tolist(), lunch.until(np.array([0]), 12.0).tolist()
      ([36.0, 14.0], [13.0])
    """
    length = whole_ticks(length)

    def place(clients, seconds):
        clients = np.asarray(clients)
        seconds = np.broadcast_to(np.asarray(seconds, np.float64), clients.shape)
        begins = whole_ticks(origin(clients))
        days, local = np.divmod(seconds - begins, length)
        return clients, seconds, begins, days.astype(np.int64), local

    def edges(clients, days):
        starts, ends = window(clients, days)
        return whole_ticks(starts), whole_ticks(ends)

    def online(clients, seconds):
        clients, _, _, days, local = place(clients, seconds)
        starts, ends = edges(clients, days)
        return (starts <= local) & (local < ends)

    def until(clients, seconds):
        clients, seconds, begins, days, local = place(clients, seconds)
        starts, ends = edges(clients, days)
        inside = (starts <= local) & (local < ends)
        return np.where(inside, begins + days * length + ends, seconds)

    def since(clients, seconds):
        clients, seconds, begins, days, local = place(clients, seconds)
        starts, ends = edges(clients, days)
        today = np.where(local < ends, np.maximum(begins + days * length + starts, seconds), np.inf)
        today = np.where(starts < ends, today, np.inf)

        def has_window(who, day):
            starts, ends = edges(who, day)
            return starts < ends

        later = np.isinf(today)
        next_day = first_cell(clients[later], days[later] + 1, has_window, width=1)
        starts, _ = edges(clients[later], next_day)
        again = begins[later] + next_day * length + starts
        today[later] = np.where(next_day < NEVER, again, np.inf)
        return today

    return Availability(online, until, since)
