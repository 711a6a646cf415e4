"""Arrays come back as they were placed; the axis that is sharded is the one that was named."""

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from fljax.engine.devices import placement
from fljax.engine.devices.execution import AXIS, make_mesh
from fljax.engine.devices.placement import fetch, own_devices, put_own, put_same, put_sharded

DEVICES = 4


@pytest.mark.parametrize("put", [put_sharded, put_own])
@pytest.mark.parametrize("axis", [0, 1])
def test_sharded_arrays_come_back(put, axis):
    mesh = make_mesh(DEVICES)
    tree = {"a": np.arange(2.0 * DEVICES).reshape(DEVICES, 2), "b": np.ones((DEVICES, 1, 3))}
    tree = jax.tree.map(lambda leaf: np.swapaxes(leaf, 0, axis).astype(np.float32), tree)
    placed = put(tree, mesh, axis)
    for leaf in jax.tree.leaves(placed):
        assert leaf.sharding.spec == PartitionSpec(*[None] * axis, AXIS)
        assert {shard.data.shape[axis] for shard in leaf.addressable_shards} == {1}
    jax.tree.map(np.testing.assert_array_equal, fetch(placed), tree)


@pytest.mark.parametrize(("block_bytes", "reads"), [(1 << 20, [4]), (16, [2, 2]), (1, [1] * 4)])
def test_of_other_processes_no_more_rows_are_read_than_there_are(block_bytes, reads, monkeypatch):
    values = np.arange(8, dtype=np.float32).reshape(4, 2)
    array = put_sharded(values, make_mesh(DEVICES))
    reader, read = placement._reader, []

    def noted(mesh, function):
        return lambda leaf, index: (read.append(len(index)), reader(mesh, function)(leaf, index))[1]

    monkeypatch.setattr(placement, "_reader", noted)
    monkeypatch.setattr(placement, "_BLOCK_BYTES", block_bytes)
    monkeypatch.setattr(type(array), "is_fully_addressable", property(lambda self: False))
    np.testing.assert_array_equal(fetch(array), values)
    assert read == reads


def test_every_device_holds_what_is_the_same():
    mesh = make_mesh(DEVICES)
    key = jax.random.key(3)
    values, placed = put_same((np.arange(3), key), mesh)
    assert values.sharding.is_fully_replicated and len(values.addressable_shards) == DEVICES
    assert (jax.random.key_data(placed) == jax.random.key_data(key)).all()


def test_one_process_owns_all_devices():
    assert own_devices(make_mesh(DEVICES)) == list(range(DEVICES))
