"""Persistent per-client state: memory follows the clients that took part, not the population."""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from fljax.engine.devices.execution import AXIS
from fljax.engine.devices.placement import fetch, fetch_rows, put_same, put_sharded
from fljax.engine.plan.counting import earlier_equals
from fljax.engine.plan.lanes import capacity
from fljax.engine.store.row_routing import block_of, make_moves, route

PyTree = Any

# Stores that take no more have all their room at once: every size compiles what reads and writes.
_SMALL_BYTES = 4 << 20


class ClientStore:
    """Rows of client state, gathered before a round and scattered after it.

    A client's row exists from its first participation on; until then it reads a shared default.
    It lies on the device that trained the client last. The device arrays grow by doubling, from a
    few megabytes up to what the most rows need and outside the round program, whose shapes never
    change.

    Args:
      default: State of a client that never took part, with a leading axis over trials.
      num_clients: Population size.
      mesh: Devices over which rows are sharded.
      on_host: Keep the rows in host memory, that of every process; each round then waits for the
        one before.
      most_rows: The most rows that will exist at once; None is one of each client and trial.
    """

    def __init__(
        self,
        default: PyTree,
        num_clients: int,
        mesh: Mesh,
        *,
        on_host: bool = False,
        most_rows: int | None = None,
    ):
        # on the devices, or every round would send it there again
        self._default = default if on_host else put_same(default, mesh)
        self._leaves = [
            jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(default)
        ]
        trials = self._leaves[0].shape[0] if self._leaves else 1
        self._mesh = mesh
        self._on_host = on_host
        self._homes = 1 if on_host else mesh.size
        self._most = rows_of_a_home(
            trials * num_clients if most_rows is None else most_rows, self._homes
        )
        # place * homes + home of each row, so that a number stays when the homes grow
        self._slots = np.full((trials, num_clients), -1, np.int32)
        self._free = [np.zeros(0, np.int32) for _ in range(self._homes)]
        self._used = np.zeros(self._homes, np.int64)
        self._moves = make_moves(mesh)
        self._room: PyTree = None
        self._rows: PyTree = None
        none = jax.tree.map(lambda leaf: np.zeros((0, *leaf.shape[1:]), leaf.dtype), default)
        self._keep(none, self._first_size())

    @property
    def row_bytes(self) -> int:
        """Bytes of one client's state."""
        return sum(math.prod(leaf.shape[1:]) * leaf.dtype.itemsize for leaf in self._leaves)

    @property
    def num_rows(self) -> int:
        """Clients that took part so far, counted once a trial."""
        return int(self._used.sum()) - sum(map(len, self._free))

    def gather(self, trials: np.ndarray, clients: np.ndarray) -> PyTree:
        """Returns the rows of the jobs of a plan, leaves [D, J, ...].

        Args:
          trials: int32[D, J].
          clients: int32[D, J]; of -1 the row may be anything.
        """
        if not self._leaves:
            return jax.tree.map(lambda leaf: leaf, self._default)
        slots = self._slots[trials, np.maximum(clients, 0)]
        if self._on_host:
            known = _broadcastable((slots >= 0) & (clients >= 0))
            rows = jax.tree.map(
                lambda leaf, default: np.where(
                    known(leaf), leaf[np.maximum(slots, 0)], np.asarray(default)[trials]
                ),
                self._rows,
                self._default,
            )
            return put_sharded(rows, self._mesh)
        place, device = np.divmod(slots, self._homes)
        place = np.where(slots < 0, -1, place)
        plan = route(device, place, trials, clients, block_of(self._mesh))
        plan = put_sharded(plan, self._mesh)
        return self._moves.read(self._take_room(clients.shape[1]), self._rows, self._default, plan)

    def gathered(self, jobs: int) -> PyTree:
        """Returns the shapes of what `gather` returns for so many jobs of a device."""
        sharding = NamedSharding(self._mesh, PartitionSpec(AXIS))
        shape = lambda leaf: (self._mesh.size, jobs, *leaf.shape[1:])  # noqa: E731
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(shape(leaf), leaf.dtype, sharding=sharding),
            self._default,
        )

    @property
    def default(self) -> PyTree:
        """State of a client that never took part, with a leading axis over trials."""
        return self._default

    def rows_of(self, clients: np.ndarray, trial: int = 0) -> PyTree:
        """Returns the rows of some clients of one trial, leaves [len(clients), ...]."""
        devices = self._mesh.size
        padded = np.full((devices, -(-len(clients) // devices)), -1, np.int32)
        padded.reshape(-1)[: len(clients)] = clients
        rows = self.gather(np.full_like(padded, trial), padded)
        return _in_one_row(rows, len(clients))

    def scatter(self, trials: np.ndarray, clients: np.ndarray, rows: PyTree) -> None:
        """Keeps the rows that a round program returned, and takes their memory for the next ones.

        Args:
          trials: int32[D, J].
          clients: int32[D, J]; of equal ones of a trial the last is kept, of -1 nothing.
          rows: Leaves [D, J, ...].
        """
        if not self._leaves:
            return
        device, job = np.nonzero(clients >= 0)
        kept = _last_of_each(trials[device, job], clients[device, job])
        device, job = device[kept], job[kept]
        place = self._settle(trials[device, job], clients[device, job], device)
        self._grow()
        if self._on_host:
            values = fetch(rows)

            def write(store, values):
                store[place] = values[device, job]
                return store

            self._rows = jax.tree.map(write, self._rows, values)
            return
        number = earlier_equals(device)
        jobs, places = np.zeros_like(clients), np.full_like(clients, self._capacity)
        jobs[device, number], places[device, number] = job, place
        count = np.bincount(device, minlength=self._homes).astype(np.int32)
        plan = put_sharded((jobs, places, count), self._mesh)
        self._rows = self._moves.write(self._rows, rows, *plan)
        self._room = rows

    def state(self) -> dict[str, PyTree]:
        """Returns what a checkpoint keeps: the slot table and all rows that are in use."""
        owners = np.argwhere(self._slots >= 0).astype(np.int32)
        place, home = np.divmod(self._slots[owners[:, 0], owners[:, 1]], self._homes)
        at = home * self._capacity + place
        # copies: rows are written in place while a checkpoint may still read these
        return {
            "owners": owners,
            "rows": jax.tree.map(lambda leaf: fetch_rows(leaf, at), self._rows),
        }

    def template(self, num_rows: int) -> dict[str, PyTree]:
        """Returns shapes of the `state` of a store with so many rows."""
        return {
            "owners": jax.ShapeDtypeStruct((num_rows, 2), np.int32),
            "rows": jax.tree.map(
                lambda leaf: jax.ShapeDtypeStruct((num_rows, *leaf.shape[1:]), leaf.dtype),
                self._default,
            ),
        }

    def load(self, state: dict[str, PyTree]) -> None:
        """Restores what `state` returned."""
        owners = np.asarray(state["owners"])
        self._slots[:] = -1
        self._slots[owners[:, 0], owners[:, 1]] = np.arange(len(owners))
        self._free = [np.zeros(0, np.int32) for _ in range(self._homes)]
        self._used = -(-(len(owners) - np.arange(self._homes)) // self._homes)
        self._keep(state["rows"])

    def forget(self, trials: np.ndarray, default: PyTree) -> None:
        """Drops the rows of some trials, which others will take; their places will be used again.

        Args:
          trials: int[K] their numbers.
          default: State of clients that never took part, leaves [S, ...].
        """
        self._default = default if self._on_host else put_same(default, self._mesh)
        if not self._leaves:
            return
        slots = self._slots[trials]
        place, home = np.divmod(slots[slots >= 0], self._homes)
        self._free = [
            np.concatenate([free, place[home == number]]) for number, free in enumerate(self._free)
        ]
        self._slots[trials] = -1

    @property
    def _capacity(self) -> int:
        """Rows of a home."""
        if not self._leaves:
            return 0
        return jax.tree.leaves(self._rows)[0].shape[0] // self._homes

    def _settle(self, trials, clients, device) -> np.ndarray:
        """Finds a place for each row at the home of its device; returns the places."""
        slots = self._slots[trials, clients]
        old_place, old_home = np.divmod(slots, self._homes)
        home = device % self._homes
        known = slots >= 0
        moves = known & (old_home != home)
        for number in range(self._homes):
            left = old_place[moves & (old_home == number)]
            free = np.concatenate([self._free[number], left])
            coming = np.flatnonzero((moves | ~known) & (home == number))
            fresh = self._used[number] + np.arange(max(0, len(coming) - len(free)))
            self._used[number] += len(fresh)
            taken = np.concatenate([free, fresh])[: len(coming)]
            self._free[number] = free[len(coming) :]
            slots[coming] = taken * self._homes + number
        self._slots[trials, clients] = slots
        return slots // self._homes

    def _first_size(self) -> int:
        """Returns rows of a home to begin with: the largest size, or a half of it that is small."""
        size, row_bytes = max(self._most, 1), self.row_bytes * self._homes
        while size > 1 and size * row_bytes > _SMALL_BYTES:
            size = -(-size // 2)
        return size

    def _grow(self) -> None:
        needed = int(self._used.max())
        if needed <= self._capacity:
            return
        # halves of the largest size: while that is reached, it is held one and a half times
        size = self._most
        while -(-size // 2) >= needed:
            size = -(-size // 2)
        size = capacity(needed, size)
        if self._on_host:
            self._keep(self._rows, size)
        else:
            self._rows = self._moves.grow(self._rows, size)

    def _keep(self, rows: PyTree, size: int = 1) -> None:
        """Stores rows [n, ...], dealt out to the homes in turn, with room for `size` in each."""
        size = max(size, int(self._used.max()))

        def dealt(leaf):
            table = np.zeros((size * self._homes, *leaf.shape[1:]), leaf.dtype)
            table[: len(leaf)] = leaf
            by_home = table.reshape(size, self._homes, *leaf.shape[1:]).swapaxes(0, 1)
            rows = by_home.reshape(table.shape)
            return rows if self._on_host else put_sharded(rows, self._mesh)

        self._rows = jax.tree.map(dealt, rows)

    def _take_room(self, jobs: int) -> PyTree:
        """Returns arrays [D, J, ...] of any content: those of the last round if they fit."""
        if self._room is None or jax.tree.leaves(self._room)[0].shape[1] != jobs:
            return self._moves.room(self._rows, jobs)
        room, self._room = self._room, None
        return room


def rows_of_a_home(rows: int, homes: int) -> int:
    """Returns for how many rows each of several homes has room where so many exist at once.

    Rows lie where their clients were trained, which is not the same number everywhere: a quarter
    more than an equal share.
    """
    return rows if homes == 1 else min(rows, -(-5 * rows // (4 * homes)))


def most_bytes(row_bytes: int, rows: int, jobs: int, homes: int, copies: int = 0) -> int:
    """Returns the bytes that the rows of a store take at most, on all devices together.

    Args:
      row_bytes: Of one client's state.
      rows: The most rows that exist at once.
      jobs: The most jobs of a round, whose rows are gathered beside the store.
      homes: Devices.
      copies: Of all rows, taken in the same memory for a checkpoint.
    """
    held = homes * rows_of_a_home(rows, homes)
    # it grows once from half of the size, when there are half as many rows to copy
    return row_bytes * (held + max(held // 2 + copies * rows // 2, copies * rows) + jobs)


def _last_of_each(trials: np.ndarray, clients: np.ndarray) -> np.ndarray:
    """Returns bool[n], true for the last of equal pairs."""
    pairs = trials.astype(np.int64) << 32 | clients
    return earlier_equals(pairs[::-1])[::-1] == 0


def _broadcastable(mask):
    """Returns a function that shapes mask[D, J] to broadcast against a gathered leaf."""
    return lambda leaf: mask.reshape(mask.shape + (1,) * (leaf.ndim - 1))


@functools.partial(jax.jit, static_argnums=1)
def _in_one_row(rows: PyTree, count: int) -> PyTree:
    """Returns the first entries of leaves [D, J, ...] as [count, ...]."""
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[:count], rows)
