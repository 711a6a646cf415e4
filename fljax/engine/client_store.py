"""Persistent per-client state: memory follows the clients that took part, not the population."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from fljax.engine.execution import AXIS
from fljax.engine.packing import capacity
from fljax.engine.placement import fetch, put_same, put_sharded

PyTree = Any


class ClientStore:
    """Rows of client state, gathered before a round and scattered after it.

    A client's row exists from its first participation on; until then it reads a shared default.
    The device arrays grow geometrically, outside the round program, whose shapes never change.

    Args:
      default: State of a client that never took part, with a leading axis over sources.
      num_clients: Population size.
      mesh: Devices over which rows are sharded.
      on_host: Keep the rows in host memory, that of every process; each round then waits for the
        one before.
    """

    def __init__(self, default: PyTree, num_clients: int, mesh: Mesh, *, on_host: bool = False):
        # on the devices, or every round would send it there again
        self._default = default if on_host else put_same(default, mesh)
        self._leaves = jax.tree.leaves(default)
        sources = self._leaves[0].shape[0] if self._leaves else 1
        self._slots = np.full((sources, num_clients), -1, np.int32)
        self._mesh = mesh
        self._on_host = on_host
        self._count = 0
        none = jax.tree.map(lambda leaf: np.zeros((0, *leaf.shape[1:]), leaf.dtype), default)
        self._keep(none, mesh.size)
        sharding = NamedSharding(mesh, PartitionSpec(AXIS))
        self._read = jax.jit(_read, out_shardings=sharding)
        self._write = jax.jit(_write, donate_argnums=(0,), out_shardings=sharding)

    @property
    def row_bytes(self) -> int:
        """Bytes of one client's state."""
        return sum(leaf[0].size * leaf.dtype.itemsize for leaf in self._leaves)

    @property
    def num_rows(self) -> int:
        """Clients that took part so far, counted once a source."""
        return self._count

    def gather(self, sources: np.ndarray, clients: np.ndarray) -> PyTree:
        """Returns the rows of the jobs of a plan, leaves [D, J, ...].

        Args:
          sources: int32[D, J].
          clients: int32[D, J]; -1 reads the default.
        """
        if not self._leaves:
            return jax.tree.map(lambda leaf: leaf, self._default)
        slots = self._slots[sources, np.maximum(clients, 0)]
        slots = np.where(clients < 0, -1, slots)
        if self._on_host:
            known = _broadcastable(slots >= 0)
            rows = jax.tree.map(
                lambda leaf, default: np.where(
                    known(leaf), leaf[np.maximum(slots, 0)], np.asarray(default)[sources]
                ),
                self._rows,
                self._default,
            )
            return put_sharded(rows, self._mesh)
        slots, sources = put_sharded((slots, sources), self._mesh)
        return self._read(self._rows, self._default, slots, sources)

    def rows_of(self, clients: np.ndarray, source: int = 0) -> PyTree:
        """Returns the rows of some clients of one source, leaves [len(clients), ...]."""
        devices = self._mesh.size
        padded = np.full((devices, -(-len(clients) // devices)), -1, np.int32)
        padded.reshape(-1)[: len(clients)] = clients
        rows = self.gather(np.full_like(padded, source), padded)
        return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[: len(clients)], rows)

    def scatter(self, sources: np.ndarray, clients: np.ndarray, rows: PyTree) -> None:
        """Keeps the rows that a round program returned.

        Args:
          sources: int32[D, J].
          clients: int32[D, J], each client of a source at most once; -1 keeps nothing.
          rows: Leaves [D, J, ...].
        """
        if not self._leaves:
            return
        real = clients >= 0
        pairs = np.unique(np.stack([sources[real], clients[real]], axis=1), axis=0)
        new = pairs[self._slots[pairs[:, 0], pairs[:, 1]] < 0]
        self._slots[new[:, 0], new[:, 1]] = self._count + np.arange(len(new))
        self._grow(self._count + len(new))
        slots = np.where(real, self._slots[sources, np.maximum(clients, 0)], self._capacity)
        if self._on_host:
            kept = slots < self._capacity

            def write(store, values):
                store[slots[kept]] = values[kept]
                return store

            self._rows = jax.tree.map(write, self._rows, fetch(rows))
        else:
            slots = put_sharded(slots.astype(np.int32), self._mesh)
            self._rows = self._write(self._rows, rows, slots)

    def state(self) -> dict[str, PyTree]:
        """Returns what a checkpoint keeps: the slot table and all rows that are in use."""
        order = np.argwhere(self._slots >= 0).astype(np.int32)
        order = order[np.argsort(self._slots[order[:, 0], order[:, 1]])]
        # a copy: host rows are written in place while a checkpoint may still read these
        rows = jax.tree.map(lambda leaf: np.array(leaf[: self._count]), fetch(self._rows))
        return {"owners": order, "rows": rows}

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
        self._count = len(owners)
        self._keep(state["rows"], capacity(self._count, self._mesh.size))

    def forget(self, sources: np.ndarray, default: PyTree) -> None:
        """Drops the rows of some sources, which others will take.

        Args:
          sources: int[K] their numbers.
          default: State of clients that never took part, leaves [S, ...].
        """
        self._default = default if self._on_host else put_same(default, self._mesh)
        state = self.state()
        kept = ~np.isin(state["owners"][:, 0], sources)
        self.load(jax.tree.map(lambda leaf: leaf[kept], state))

    @property
    def _capacity(self) -> int:
        return jax.tree.leaves(self._rows)[0].shape[0]

    def _grow(self, needed: int) -> None:
        self._count = needed
        if self._leaves and needed > self._capacity:
            self._keep(fetch(self._rows), capacity(needed, 2 * self._capacity))

    def _keep(self, rows: PyTree, size: int) -> None:
        """Stores rows, followed by zeros up to about `size` of them."""
        size = -(-min(size, self._slots.size) // self._mesh.size) * self._mesh.size
        padded = jax.tree.map(
            lambda leaf: np.concatenate(
                [leaf, np.zeros((size - len(leaf), *leaf.shape[1:]), leaf.dtype)]
            ),
            rows,
        )
        self._rows = padded if self._on_host else put_sharded(padded, self._mesh)


def _read(rows, default, slots, sources):
    known = _broadcastable(slots >= 0)
    return jax.tree.map(
        lambda leaf, shared: jnp.where(
            known(leaf), leaf.at[jnp.maximum(slots, 0)].get(mode="fill", fill_value=0),
            shared[sources],
        ),
        rows,
        default,
    )  # fmt: skip


def _write(rows, values, slots):
    return jax.tree.map(lambda leaf, value: leaf.at[slots].set(value, mode="drop"), rows, values)


def _broadcastable(mask):
    """Returns a function that shapes mask[D, J] to broadcast against a gathered leaf."""
    return lambda leaf: mask.reshape(mask.shape + (1,) * (leaf.ndim - 1))
