"""Says who owns which rows: a partition is two arrays, whatever the number of clients."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import cached_property

import numpy as np

from fljax.core.digits import counted
from fljax.data.heterogeneity.motion import Motion, joined_motions, still


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Partition:
    """The rows that each client owns.

    Attributes:
      offsets: int64[N + 1], non-decreasing, starting at 0.
      index: int32 or int64 [num_rows] row numbers, or None where client i owns the consecutive
        rows `offsets[i]:offsets[i+1]`: a million clients then cost one array of offsets.
      motion: How what clients own changes from round to round, see `heterogeneity.motion`; all else
        then tells of round 0. None where it stays.

    Raises:
      ValueError: If the offsets decrease, do not start at 0, or do not fit the index, or one of
        them is no vector of integers.

    Example:
      >>> data.iid(6, 2).sizes.tolist()
      [3, 3]
    """

    offsets: np.ndarray
    index: np.ndarray | None = None
    motion: Motion | None = None

    def __post_init__(self):
        offsets = _integers(self.offsets, "offsets").astype(np.int64, copy=False)
        object.__setattr__(self, "offsets", offsets)
        if offsets.size < 1 or offsets[0] != 0 or np.any(np.diff(offsets) < 0):
            raise ValueError("offsets must be a vector that starts at 0 and never decreases")
        if self.index is None:
            return
        index = _integers(self.index, "index")
        object.__setattr__(self, "index", index)
        if len(index) != offsets[-1]:
            raise ValueError(
                f"the offsets end at {offsets[-1]}, but the index has {len(index)} rows"
            )

    def __repr__(self) -> str:
        return f"Partition({counted(self.num_clients, 'client')}, {counted(self.num_rows, 'row')})"

    @property
    def num_clients(self) -> int:
        return len(self.offsets) - 1

    @property
    def num_rows(self) -> int:
        return int(self.offsets[-1])

    @cached_property
    def sizes(self) -> np.ndarray:
        """int64[N], the number of rows of each client."""
        return np.diff(self.offsets)

    def rows(self, client: int) -> np.ndarray:
        """Returns the row numbers of one client, int[sizes[client]]."""
        start, stop = self.offsets[client], self.offsets[client + 1]
        return np.arange(start, stop) if self.index is None else self.index[start:stop]

    def all_rows(self) -> np.ndarray:
        """Returns the rows of all clients, client after client: int[num_rows]."""
        return np.arange(self.num_rows) if self.index is None else self.index

    def owners(self) -> np.ndarray:
        """Returns the client of each entry of `all_rows()`: int64[num_rows]."""
        return np.repeat(np.arange(self.num_clients), self.sizes)

    def row_at(
        self, clients: np.ndarray, positions: np.ndarray, rounds: np.ndarray | int = 0
    ) -> np.ndarray:
        """Returns the row number of each client's row at a position; the arguments broadcast.

        Args:
          clients: int array of client numbers.
          positions: int array, each in [0, sizes[client]); not checked.
          rounds: int array of round numbers, which say nothing where rows stay with their clients.
        """
        if self.motion is not None:
            return self.motion.row_at(clients, positions, rounds)
        flat = self.offsets[clients] + positions
        return flat if self.index is None else self.index[flat]

    def at(self, round: int) -> Partition:
        """Returns the partition of what clients own in a round."""
        if self.motion is None:
            return self
        owners = self.owners()
        positions = np.arange(self.num_rows) - self.offsets[owners]
        return Partition(self.offsets, self.motion.row_at(owners, positions, round))

    def subset(self, clients: np.ndarray) -> Partition:
        """Returns the partition of some clients, in the order given, over the same rows.

        Raises:
          ValueError: If a number is not that of a client.
        """
        clients = _integers(clients, "clients").astype(np.int64, copy=False)
        wrong = clients[(clients < 0) | (clients >= self.num_clients)]
        if wrong.size:
            raise ValueError(f"there is no client {wrong[0]} among {self.num_clients} clients")
        sizes = self.sizes[clients]
        offsets = offsets_of(sizes)
        flat = np.arange(offsets[-1]) + np.repeat(self.offsets[clients] - offsets[:-1], sizes)
        motion = None if self.motion is None else self.motion.subset(clients)
        return Partition(offsets, flat if self.index is None else self.index[flat], motion)


def _integers(values: np.ndarray, name: str) -> np.ndarray:
    """Returns a vector of integers as an array; refuses what would be cut off, or is a mask."""
    values = np.asarray(values)
    if not values.size:
        values = values.astype(np.int64)
    if values.ndim != 1 or values.dtype.kind not in "iu":
        raise ValueError(
            f"{name} must be a vector of integers, not {values.dtype} of shape {list(values.shape)}"
            + (": give np.flatnonzero of a mask" if values.dtype.kind == "b" else "")
        )
    return values


def offsets_of(sizes: np.ndarray) -> np.ndarray:
    """Returns int64[N + 1] offsets of clients with these sizes."""
    return np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])


def joined(partitions: Sequence[Partition]) -> Partition:
    """Returns the clients of several partitions of the same rows, one partition after the other."""
    if len(partitions) == 1:
        return partitions[0]
    sizes = np.concatenate([partition.sizes for partition in partitions])
    rows = np.concatenate([partition.all_rows() for partition in partitions])
    motion = None
    if any(partition.motion is not None for partition in partitions):
        motion = joined_motions(
            [each.motion or still(each.offsets, each.all_rows()) for each in partitions]
        )
    return Partition(offsets_of(sizes), rows, motion)


def partition_by_owner(owner: np.ndarray, num_clients: int) -> Partition:
    """Returns the partition in which client `owner[r]` owns row r; rows keep their order.

    Args:
      owner: int[rows], each in [0, num_clients).
      num_clients: N.
    """
    index = np.argsort(owner, kind="stable")
    small = len(index) <= np.iinfo(np.int32).max
    sizes = np.bincount(owner, minlength=num_clients)
    return Partition(offsets_of(sizes), index.astype(np.int32) if small else index)
