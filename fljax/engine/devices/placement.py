"""Arrays between the host and the devices of a mesh, which may belong to several processes.

A process sends to its own devices and can read nothing else; so what the host wants to know is
gathered on the devices first. With one process these are `jax.device_put` and `jax.device_get`.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from fljax.engine.devices.execution import AXIS

PyTree = Any

# Sharded arrays are gathered in blocks of rows: a whole one may not fit on a device.
_BLOCK_BYTES = 1 << 26


def put_same(tree: PyTree, mesh: Mesh) -> PyTree:
    """Places the same arrays on every device; all processes hold equal ones."""
    return _put(tree, NamedSharding(mesh, PartitionSpec()))


def put_sharded(tree: PyTree, mesh: Mesh, axis: int = 0) -> PyTree:
    """Shards arrays over the devices, along an axis; all processes hold equal ones."""
    return _put(tree, _sharded(mesh, axis))


def put_own(tree: PyTree, mesh: Mesh, axis: int = 0) -> PyTree:
    """Shards arrays of which each process holds the entries of its own devices.

    Args:
      tree: Leaves with one entry along `axis` for each of `own_devices(mesh)`.
      mesh: The devices.
      axis: The axis.

    Returns:
      Global arrays, with one entry along `axis` for each device of the mesh.
    """
    if not mesh.is_multi_process:
        return put_sharded(tree, mesh, axis)
    place = {device: index for index, device in enumerate(own_devices(mesh))}

    def put(leaf):
        own = _on_host(leaf)

        def shard(index):
            mine = place[index[axis].start or 0]
            return own[(*index[:axis], slice(mine, mine + 1))]

        shape = (*own.shape[:axis], mesh.size, *own.shape[axis + 1 :])
        return jax.make_array_from_callback(shape, _sharded(mesh, axis), shard)

    return jax.tree.map(put, tree)


@jax.jit
def copied(tree: PyTree) -> PyTree:
    """Returns copies of arrays on the devices, for programs that take what they are given."""
    return jax.tree.map(jnp.copy, tree)


def own_devices(mesh: Mesh) -> list[int]:
    """Returns the positions in the mesh of this process's devices, ascending."""
    process = jax.process_index()
    return [n for n, device in enumerate(mesh.devices.flat) if device.process_index == process]


def host_readable(mesh: Mesh) -> NamedSharding | None:
    """Returns the output sharding of results that every host reads: None leaves it as it is.

    Where there are several processes, the program ends with an all-gather of such results.
    """
    return NamedSharding(mesh, PartitionSpec()) if mesh.is_multi_process else None


def fetch(tree: PyTree) -> PyTree:
    """Waits for arrays and returns them as NumPy arrays, those that other processes hold included.

    All processes must call it together wherever an array is sharded.
    """
    return jax.tree.map(_fetch, tree)


def fetch_rows(leaf: Any, index: np.ndarray) -> np.ndarray:
    """Waits for an array and returns rows of it, copied; without a copy of the others on a CPU.

    All processes must call it together where the array is sharded.

    Args:
      leaf: [N, ...], as it is or sharded along its first axis.
      index: int[R] numbers of rows.
    """
    if not isinstance(leaf, jax.Array) or not leaf.is_fully_addressable:
        return _fetch(leaf)[index]
    rows = np.empty((len(index), *leaf.shape[1:]), leaf.dtype)
    for shard in leaf.addressable_shards:
        values, begin = np.asarray(shard.data), shard.index[0].start or 0
        here = (index >= begin) & (index < begin + len(values))
        rows[here] = values[index[here] - begin]
    return rows


def any_process(flag: bool, mesh: Mesh) -> bool | jax.Array:
    """Starts a vote, without waiting for it: true where any process says so."""
    if not mesh.is_multi_process:
        return flag
    votes = put_own(np.full(len(own_devices(mesh)), flag), mesh)
    return _reader(mesh, jnp.any)(votes)


def _sharded(mesh: Mesh, axis: int) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec(*[None] * axis, AXIS))


def _put(tree: PyTree, sharding: NamedSharding) -> PyTree:
    if sharding.is_fully_addressable:
        return jax.device_put(tree, sharding)

    def put(leaf):
        # not `device_put`: it would ask the other processes whether they hold the same, which a
        # plan that is placed in a thread must not do beside the main thread's computations
        host = _on_host(leaf)
        return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])

    return jax.tree.map(put, tree)


def _on_host(leaf: Any) -> Any:
    """Returns a NumPy array of a dtype that JAX has; typed PRNG keys stay what they are."""
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return leaf
    array = np.asarray(leaf)
    return array.astype(jax.dtypes.canonicalize_dtype(array.dtype), copy=False)


def _fetch(leaf: Any) -> Any:
    if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable or leaf.is_fully_replicated:
        return jax.device_get(leaf)
    read = _reader(leaf.sharding.mesh, _rows)
    count = min(len(leaf), max(1, _BLOCK_BYTES * len(leaf) // max(leaf.nbytes, 1)))
    blocks = [
        np.asarray(read(leaf, np.arange(start, start + count)))
        for start in range(0, len(leaf), count)
    ]
    return np.concatenate(blocks)[: len(leaf)]


def _rows(leaf: jax.Array, index: jax.Array) -> jax.Array:
    return leaf.at[index].get(mode="clip")


@functools.cache
def _reader(mesh: Mesh, function):
    return jax.jit(function, out_shardings=NamedSharding(mesh, PartitionSpec()))
