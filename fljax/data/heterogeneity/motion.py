"""Moves a window over the rows of each client, so that what it holds depends on the round.

A window has the same number of rows in every round: local steps, weights, cohorts and the
accounting of private runs are what they are without motion. It goes around, from the last of a
client's rows to the first. Two copies of the same rows, one behind the other, are two concepts: a
window as long as one of them holds the first, jumps to the second, or glides into it row by row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Motion(NamedTuple):
    """Places of the windows of N clients, round by round.

    Attributes:
      offsets: int64[N + 1]; client i ever holds the rows `index[offsets[i]:offsets[i+1]]`.
      index: int[rows], in the order in which a client meets them.
      knots: int64[N, M] ascending rounds, the first of which is 0.
      begins: int64[N, M] the position of a window's first row in these rounds; between two of them
        it moves evenly, and behind the last one it stays.
      delays: int64[N] rounds by which a client comes later.
      periods: int64[N] rounds after which a client begins anew; 0 for never.
    """

    offsets: np.ndarray
    index: np.ndarray
    knots: np.ndarray
    begins: np.ndarray
    delays: np.ndarray
    periods: np.ndarray

    def begin(self, clients: np.ndarray, rounds: np.ndarray | int) -> np.ndarray:
        """Returns int64, the position of the first row of each client's window in a round."""
        clients, rounds = np.broadcast_arrays(clients, rounds)
        time, period = np.maximum(rounds - self.delays[clients], 0), self.periods[clients]
        time = np.where(period > 0, time % np.maximum(period, 1), time)
        knots, begins = self.knots[clients], self.begins[clients]
        last = (knots <= time[..., None]).sum(-1, keepdims=True) - 1
        coming = np.minimum(last + 1, knots.shape[-1] - 1)
        (since, at), (until, to) = (
            [np.take_along_axis(values, place, -1)[..., 0] for values in (knots, begins)]
            for place in (last, coming)
        )
        return at + (to - at) * (time - since) // np.maximum(until - since, 1)

    def moves(self, clients: np.ndarray, rounds: np.ndarray | int) -> np.ndarray:
        """Returns whether each client's window is on its way between a round and the one before.

        A window of few rows that glides for long rests in between; it is on its way nevertheless.
        """
        clients, rounds = np.broadcast_arrays(clients, rounds)
        time, period = rounds - self.delays[clients], self.periods[clients]
        before = np.where(period > 0, (time - 1) % np.maximum(period, 1), time - 1)
        knots, begins = self.knots[clients], self.begins[clients]
        last = (knots <= before[..., None]).sum(-1, keepdims=True) - 1
        coming = np.minimum(last + 1, knots.shape[-1] - 1)
        at, to = (np.take_along_axis(begins, place, -1)[..., 0] for place in (last, coming))
        # from the last knot of a period to the next one's begin no knot leads
        total = np.maximum(self.offsets[np.add(clients, 1)] - self.offsets[clients], 1)
        jump = self.begin(clients, rounds) - self.begin(clients, rounds - 1)
        return (time > 0) & ((at != to) | (jump % total != 0))

    def row_at(self, clients: np.ndarray, positions: np.ndarray, rounds: np.ndarray | int):
        """Returns the row number at a position of each client's window; the arguments broadcast."""
        first, total = self.offsets[clients], self.offsets[np.add(clients, 1)]
        place = (self.begin(clients, rounds) + positions) % np.maximum(total - first, 1)
        return self.index[first + place]

    def subset(self, clients: np.ndarray) -> Motion:
        """Returns the motion of some clients, in the order given."""
        sizes = np.diff(self.offsets)[clients]
        offsets = np.concatenate([[0], np.cumsum(sizes)])
        flat = np.arange(offsets[-1]) + np.repeat(self.offsets[clients] - offsets[:-1], sizes)
        own = (values[clients] for values in self[2:])
        return Motion(offsets, self.index[flat], *own)


def still(offsets: np.ndarray, index: np.ndarray) -> Motion:
    """Returns the motion of clients that always hold the same rows."""
    none = np.zeros(len(offsets) - 1, np.int64)
    return Motion(offsets, index, none[:, None], none[:, None], none, none)


def joined_motions(motions: Sequence[Motion]) -> Motion:
    """Returns the motion of the clients of several, one after the other."""
    most = max(motion.knots.shape[1] for motion in motions)

    def as_long(values):
        return np.pad(values, ((0, 0), (0, most - values.shape[1])), mode="edge")

    sizes = np.concatenate([np.diff(motion.offsets) for motion in motions])
    return Motion(
        np.concatenate([[0], np.cumsum(sizes)]),
        np.concatenate([motion.index for motion in motions]),
        np.concatenate([as_long(motion.knots) for motion in motions]),
        np.concatenate([as_long(motion.begins) for motion in motions]),
        np.concatenate([motion.delays for motion in motions]),
        np.concatenate([motion.periods for motion in motions]),
    )
