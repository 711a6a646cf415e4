"""Rows that lie on the devices: moved to where jobs read them, and kept where they were written.

A row is read by the device that trains its client, and is kept there afterwards. So writing is
local, and reading moves only the rows of clients that were trained elsewhere the last time. Rows
travel a few at a time, between arrays that exist already: on a CPU, memory that is new to the
process takes several times as long to fill as old memory.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from fljax.core.trees import put_wanted_rows
from fljax.engine.devices.execution import AXIS
from fljax.engine.plan.counting import earlier_equals

PyTree = Any

# Rows that a device sends to another one at a time: one stays in a CPU's caches, many keep an
# accelerator busy.
_CPU_BLOCK, _BLOCK = 1, 32


class Route(NamedTuple):
    """Which rows go where: D devices, K steps at most, blocks of B rows.

    Entry s of the second axis is about the rows that each device sends to the s-th one after it.

    Attributes:
      origin: int32[D, D, K, B] places of the rows that a device sends in a step, or -1 - trial for
        the default of a trial.
      target: int32[D, D, K, B] the jobs that read what it receives; beyond the last one where there
        are fewer.
      count: int32[D, D, K] how many there are.
      steps: int32[D, D] steps in which any device sends something.
    """

    origin: np.ndarray
    target: np.ndarray
    count: np.ndarray
    steps: np.ndarray


class Moves(NamedTuple):
    """The compiled functions of a mesh.

    Attributes:
      room: (rows[D * C, ...], jobs) -> [D, J, ...] of any content.
      read: (room, rows, default[S, ...], Route) -> [D, J, ...]; room is donated.
      write: (rows, values[D, J, ...], job[D, J], place[D, J], count[D]) -> rows, with the values of
        the first so many jobs at their places; rows are donated.
      grow: (rows, C') -> [D * C', ...].
    """

    room: Callable
    read: Callable
    write: Callable
    grow: Callable


def block_of(mesh: Mesh) -> int:
    """Returns the rows that a device sends to another one at a time."""
    return _CPU_BLOCK if _on_cpu(mesh) else _BLOCK


def route(
    device: np.ndarray, place: np.ndarray, trials: np.ndarray, clients: np.ndarray, block: int
) -> Route:
    """Plans how the rows of jobs come to them.

    Args:
      device, place: int32[D, J] where the row of each job lies; place -1 reads the default.
      trials: int32[D, J].
      clients: int32[D, J]; jobs of client -1 read nothing.
      block: Rows that a device sends to another one at a time.
    """
    devices, jobs = clients.shape
    reader, job = np.nonzero(clients >= 0)
    known = place[reader, job] >= 0
    sender = np.where(known, device[reader, job], reader)
    shift = (reader - sender) % devices
    number = earlier_equals(sender * np.int64(devices) + reader)
    step, slot = np.divmod(number, block)
    steps = -(-jobs // block)
    origin = np.full((devices, devices, steps, block), -1, np.int32)
    target = np.full((devices, devices, steps, block), jobs, np.int32)
    origin[sender, shift, step, slot] = np.where(
        known, place[reader, job], -1 - trials[reader, job]
    )
    target[reader, shift, step, slot] = job
    count = (target < jobs).sum(-1, dtype=np.int32)
    last = (count > 0).any(0).sum(-1, dtype=np.int32)
    return Route(origin, target, count, np.tile(last, (devices, 1)))


def make_moves(mesh: Mesh) -> Moves:
    """Returns the functions of a mesh; stores of one mesh share what is compiled."""
    return _moves(mesh, _put_in_turn if _on_cpu(mesh) else _put_together)


@functools.cache
def _moves(mesh: Mesh, put: Callable) -> Moves:
    sharded, same = PartitionSpec(AXIS), PartitionSpec()
    sharding = NamedSharding(mesh, sharded)

    def on_devices(function, *specs):
        return jax.shard_map(
            function, mesh=mesh, in_specs=specs, out_specs=sharded, check_vma=False
        )

    def room(rows, jobs):
        return jax.tree.map(
            lambda leaf: jnp.zeros((mesh.size, jobs, *leaf.shape[1:]), leaf.dtype), rows
        )

    def read(room, rows, default, plan):
        room, plan = jax.tree.map(lambda leaf: leaf[0], (room, plan))

        for shift in range(mesh.size):
            moves = jax.tree.map(lambda leaf, shift=shift: leaf[shift], plan)

            def step(number, room, moves=moves, shift=shift):
                block = _known_or_default(rows, default, moves.origin[number])
                block = _sent(block, shift, mesh.size)
                return put(room, moves.target[number], block, moves.count[number])

            room = jax.lax.fori_loop(0, moves.steps, step, room)
        return jax.tree.map(lambda leaf: leaf[None], room)

    def write(rows, values, job, place, count):
        values = jax.tree.map(lambda leaf: leaf[0], values)
        return put(rows, place[0], values, count[0], job[0])

    def grow(rows, size):
        def padded(leaf):
            more = jnp.zeros((size - len(leaf), *leaf.shape[1:]), leaf.dtype)
            return jnp.concatenate([leaf, more])

        return on_devices(lambda rows: jax.tree.map(padded, rows), sharded)(rows)

    return Moves(
        room=jax.jit(room, static_argnums=1, out_shardings=sharding),
        read=jax.jit(on_devices(read, sharded, sharded, same, sharded), donate_argnums=0),
        write=jax.jit(on_devices(write, *[sharded] * 5), donate_argnums=0),
        grow=jax.jit(grow, static_argnums=1),
    )


def _known_or_default(rows: PyTree, default: PyTree, origin: jax.Array) -> PyTree:
    """Returns the rows [N, ...] at places origin[N], where negative ones are defaults."""

    def pick(leaf, shared):
        def one(place):
            known = leaf[jnp.maximum(place, 0)]
            return jnp.where(place >= 0, known, shared[jnp.maximum(-1 - place, 0)])

        if origin.shape[0] == 1:
            return one(origin[0])[None]
        return jax.vmap(one)(origin)

    return jax.tree.map(pick, rows, default)


def _sent(block: PyTree, shift: int, devices: int) -> PyTree:
    """Sends rows to the device that comes so many places later; returns those that arrive."""
    if not shift:
        return block
    pairs = [(device, (device + shift) % devices) for device in range(devices)]
    return jax.tree.map(lambda leaf: jax.lax.ppermute(leaf, AXIS, pairs), block)


def _put_in_turn(tree: PyTree, targets, rows: PyTree, count, which=None) -> PyTree:
    """Writes the first `count` of rows[which] to their targets, one by one and in place."""

    def one(number, tree):
        chosen = number if which is None else which[number]

        def put(leaf, row):
            row = jax.lax.dynamic_slice_in_dim(row, chosen, 1)
            return jax.lax.dynamic_update_slice_in_dim(leaf, row, targets[number], 0)

        return jax.tree.map(put, tree, rows)

    return jax.lax.fori_loop(0, count, one, tree)


def _put_together(tree: PyTree, targets, rows: PyTree, count, which=None) -> PyTree:
    """Writes the first `count` of rows[which] to their targets, all at once."""
    if which is not None:
        rows = jax.tree.map(lambda row: row[which], rows)
    return put_wanted_rows(tree, targets, rows, jnp.arange(len(targets)) < count)


def _on_cpu(mesh: Mesh) -> bool:
    return mesh.devices.flat[0].platform == "cpu"
