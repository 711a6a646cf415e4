"""Schedules of one's own, whose arrivals are checked round by round."""

from __future__ import annotations

from typing import Any

import numpy as np

from fljax.core.schedule import Arrivals, Schedule
from fljax.core.values import shown

# The columns of arrivals, the kinds of their numbers, and what they are.
_COLUMNS = {
    "version": ("iu", "whole numbers"),
    "accepted": ("b", "truth values"),
    "steps": ("iu", "whole numbers"),
    "scale": ("iuf", "numbers"),
    "place": ("iu", "whole numbers"),
}
# What arrivals bring only where the schedule says so, and then always.
_SAID = {"steps": "has_steps", "scale": "has_scale"}
# Columns of which one number may stand for all.
_FOR_ALL = ("version", "accepted")


def checked_schedule(schedule: Schedule, steps: np.ndarray | None) -> Schedule:
    """Returns a schedule that draws as another one does, and fails where that breaks the contract.

    Args:
      schedule: The schedule.
      steps: int64[N] configured local steps of each client; None where they are not what counts.

    Example:
      >>> from fljax.core.schedule import Arrivals, Schedule
      >>> from fljax.systems.own import checked_schedule
      >>> def draw(state, round):
      ...     return Arrivals(np.array([0]), version=-1), state
      >>> mine = checked_schedule(Schedule(lambda: (), draw, 1), np.array([5]))
      >>> try:
      ...     mine.draw((), 3)
      ... except ValueError as error:
      ...     print(error)
      schedule, round 3: version of client 0 is -1; give 0 or more.
    """

    def draw(state, round: int):
        found = schedule.draw(state, round)
        where = f"schedule, round {round}"
        if type(found) is not tuple or len(found) != 2 or not isinstance(found[0], Arrivals):
            raise ValueError(
                f"{where}: draw returned {shown(found)} ({type(found).__name__}); return "
                "(fljax.core.schedule.Arrivals, state)."
            )
        _check(where, schedule, found[0], steps)
        return found

    return schedule._replace(draw=draw)


def _check(where: str, schedule: Schedule, arrivals: Arrivals, most: np.ndarray | None) -> None:
    """Raises ValueError for arrivals that are not what they must be."""
    clients = np.asarray(arrivals.clients)
    if clients.ndim != 1 or (len(clients) and clients.dtype.kind not in "iu"):
        raise ValueError(
            f"{where}: clients = {shown(arrivals.clients)} must be an array of whole numbers."
        )
    for name in _COLUMNS:
        _check_column(where, schedule, name, getattr(arrivals, name), clients)
    if most is None or arrivals.steps is None or not len(clients):
        return
    if ((clients < 0) | (clients >= len(most))).any():
        return  # `fljax.engine.plan.cohorts` refuses clients that there are not
    steps, whole = np.asarray(arrivals.steps), most[clients]
    if (above := np.flatnonzero(steps > whole)).size:
        job = above[0]
        raise ValueError(
            f"{where}: client {clients[job]} is to take {steps[job]} local steps, and the run is "
            f"configured for {whole[job]} of it. Give as many at most, or raise epochs."
        )


def _check_column(
    where: str, schedule: Schedule, name: str, value: Any, clients: np.ndarray
) -> None:
    """Raises ValueError for a column of another length or kind, or with a negative number."""
    said = _SAID.get(name)
    if said and (value is not None) != getattr(schedule, said):
        raise ValueError(
            f"{where}: the schedule has {said} = {getattr(schedule, said)}, and {name} = "
            f"{shown(value)}. Bring {name} in every round and set {said}, or neither."
        )
    if value is None:
        return
    column, (kinds, what) = np.asarray(value), _COLUMNS[name]
    if column.shape != clients.shape and not (name in _FOR_ALL and column.ndim == 0):
        raise ValueError(
            f"{where}: {name} has the shape {column.shape}, and there are {len(clients)} clients. "
            "Give one entry for each."
        )
    if column.size and column.dtype.kind not in kinds:
        raise ValueError(f"{where}: {name} = {shown(value)} must be {what}.")
    low = -np.inf if name == "scale" else 0
    bad = np.flatnonzero(~((column >= low) & (column < np.inf)))
    if bad.size and len(clients):
        client, number = clients[bad[0]], np.broadcast_to(column, clients.shape)[bad[0]]
        must = "a finite number" if name == "scale" else "0 or more"
        raise ValueError(f"{where}: {name} of client {client} is {number}; give {must}.")
