"""Availability from recorded intervals: each client is online from starts to ends, over and over.

All traces come to this. The intervals of all clients lie in one array after another, and a moment
is found among those of each client by bisection, for all clients that are asked for at once.
"""

from __future__ import annotations

import numpy as np

from fljax.core.values import POSITIVE, wrong
from fljax.systems.availability import Availability

# Moments are kept in steps of 2^-20 seconds, so that arithmetic over periods is exact: a client is
# online at the moment that `since` names, and not at that which `until` names.
_STEPS = 2.0**20


def whole_ticks(seconds: np.ndarray | float) -> np.ndarray:
    """Returns float64 seconds, rounded to steps of 2^-20 seconds (a microsecond).

    Example:
      >>> from fljax.systems.intervals import whole_ticks
      >>> float(whole_ticks(0.5)), float(whole_ticks(0.1)) == 0.1
      (0.5, False)
    """
    return np.rint(np.asarray(seconds, np.float64) * _STEPS) / _STEPS


def intervals(
    starts: np.ndarray,
    ends: np.ndarray,
    offsets: np.ndarray,
    period: np.ndarray | float | None = None,
    origin: np.ndarray | float = 0.0,
    row: np.ndarray | None = None,
) -> Availability:
    """Lets clients be online in intervals [start, end), which may repeat.

    Args:
      starts: float64[M] seconds from the origin, those of a row ascending.
      ends: float64[M] likewise; none of a row is after the next start. Intervals that touch are
        one.
      offsets: int64[R + 1]; row r has the intervals offsets[r]:offsets[r + 1], or none.
      period: float64[R], or one for all, seconds after which a row's intervals start again; None
        if they do not, and clients are then offline after the last one.
      origin: float64[R], or one for all, seconds of simulated time at which a row's intervals
        begin; those that repeat go back in time as well.
      row: int64[N] the row of each client; None where client i has row i.

    Raises:
      ValueError: If intervals overlap, are not in order, or leave their period.

    Example:
      >>> from fljax.systems.intervals import intervals
      >>> nights = intervals(np.array([0.0, 22]), np.array([6.0, 24]), np.array([0, 2]), period=24)
      >>> at = np.array([5.0, 12, 23])
      >>> who = np.zeros(3, int)
      >>> nights.online(who, at).tolist(), nights.since(who, at).tolist()
      ([True, False, True], [5.0, 22.0, 23.0])
      >>> nights.until(who[:1], 23.0).tolist()
      [30.0]
    """
    starts, ends, offsets = _joined(whole_ticks(starts), whole_ticks(ends), np.asarray(offsets))
    rows = len(offsets) - 1
    periods = None
    if period is not None:
        periods = np.broadcast_to(whole_ticks(period), (rows,))
        _check_periods(starts, ends, offsets, periods)
    origins = np.broadcast_to(whole_ticks(origin), (rows,))

    def place(clients, seconds):
        """Returns rows, seconds at which their present period began, seconds since then, and
        int64[n] the first interval that ends after them: that of the end, if there is none."""
        rows = np.asarray(clients) if row is None else row[clients]
        local = np.asarray(seconds, np.float64) - origins[rows]
        begun = origins[rows]
        if periods is not None:
            laps, local = np.divmod(local, periods[rows])
            begun = begun + laps * periods[rows]
        return rows, begun, local, _first_after(ends, offsets[rows], offsets[rows + 1], local)

    def within(rows, at):
        """Returns whether there is such an interval, and a number that may index one."""
        exists = at < offsets[rows + 1]
        return exists, np.where(exists, at, 0)

    def online(clients, seconds):
        rows, _, local, at = place(clients, seconds)
        exists, at = within(rows, at)
        if not len(starts):
            return exists
        return exists & (starts[at] <= local)

    def until(clients, seconds):
        rows, begun, local, at = place(clients, seconds)
        exists, at = within(rows, at)
        if not len(starts):
            return np.array(np.broadcast_to(seconds, rows.shape), np.float64)
        is_online = exists & (starts[at] <= local)
        end = begun + ends[at]
        if periods is not None:  # what reaches the end of a period may go on in the next one
            first = np.minimum(offsets[rows], len(starts) - 1)
            goes_on = (ends[at] == periods[rows]) & (starts[first] == 0)
            end = np.where(goes_on, end + ends[first], end)
            end = np.where(goes_on & (ends[first] == periods[rows]), np.inf, end)
        return np.where(is_online, end, seconds)

    def since(clients, seconds):
        rows, begun, local, at = place(clients, seconds)
        exists, at = within(rows, at)
        if not len(starts):
            return np.full(rows.shape, np.inf)
        later = np.where(starts[at] <= local, seconds, begun + starts[at])
        if periods is None:
            return np.where(exists, later, np.inf)
        first = np.minimum(offsets[rows], len(starts) - 1)
        again = begun + periods[rows] + starts[first]
        again = np.where(offsets[rows] < offsets[rows + 1], again, np.inf)
        return np.where(exists, later, again)

    return Availability(online, until, since)


def _first_after(
    ends: np.ndarray, low: np.ndarray, high: np.ndarray, local: np.ndarray
) -> np.ndarray:
    """Returns int64[n] the first place in low:high whose end is after a moment, or high.

    Args:
      ends: float64[M], those in each low:high ascending.
      low, high: int64[n].
      local: float64[n].
    """
    low, high = low.copy(), high.copy()
    for _ in range(int((high - low).max(initial=0)).bit_length()):
        middle = (low + high) >> 1
        # where low == high, the middle may lie beyond the array, and nothing changes
        after = ends[np.minimum(middle, len(ends) - 1)] > local
        high = np.where(after & (low < high), middle, high)
        low = np.where(after | (low >= high), low, middle + 1)
    return low


def _joined(
    starts: np.ndarray, ends: np.ndarray, offsets: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns checked intervals: those that touch are one, and empty ones are left out."""
    count = len(starts)
    if starts.shape != ends.shape or offsets[0] != 0 or offsets[-1] != count:
        raise ValueError(
            f"{count} starts, {len(ends)} ends, offsets from {offsets[0]} to {offsets[-1]}: give "
            "as many ends as starts, and offsets from 0 to their number."
        )
    if (np.diff(offsets) < 0).any():
        raise wrong("offsets", offsets, "in ascending order")
    if not (np.isfinite(starts) & np.isfinite(ends)).all():
        raise ValueError("starts and ends of intervals must be finite.")
    owner = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    _check_order(ends < starts, owner, starts, ends, "ends before it starts")
    kept = ends > starts
    starts, ends, owner = starts[kept], ends[kept], owner[kept]
    same = owner[1:] == owner[:-1]
    early = np.concatenate([[False], same & (starts[1:] < ends[:-1])]) if len(starts) else ~kept[:0]
    _check_order(early, owner, starts, ends, "starts before the one ahead of it ends")
    touches = same & (starts[1:] == ends[:-1]) if len(starts) else same
    first = np.concatenate([[True], ~touches])[: len(starts)]
    last = np.concatenate([~touches, [True]])[: len(starts)]
    counts = np.bincount(owner[first], minlength=len(offsets) - 1)
    return starts[first], ends[last], np.concatenate([[0], np.cumsum(counts)])


def _check_order(bad: np.ndarray, owner, starts, ends, what: str) -> None:
    if bad.any():
        at = int(np.argmax(bad))
        raise ValueError(f"row {owner[at]}: the interval {starts[at]:g} to {ends[at]:g} {what}.")


def _check_periods(starts, ends, offsets, periods) -> None:
    if not (np.isfinite(periods) & (periods > 0)).all():
        raise wrong("period", periods, f"{POSITIVE} and finite")
    owner = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    outside = (starts < 0) | (ends > periods[owner])
    _check_order(outside, owner, starts, ends, "leaves its period")
