"""Arrays that devices read in place."""

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from fljax.data import memory
from fljax.engine.execution import make_mesh
from fljax.engine.placement import put_same


@given(arrays.arrays(st.sampled_from([np.float32, np.int32, np.uint8]), arrays.array_shapes()))
def test_in_place_keeps_the_values(array):
    placed = memory.in_place(array)
    np.testing.assert_array_equal(placed, array)
    assert placed.dtype == array.dtype and placed.ctypes.data % 64 == 0
    assert memory.in_place(placed) is placed


def test_devices_share_the_memory():
    array = memory.empty((1000, 7), np.float32)
    array[:] = np.arange(7)
    placed = put_same(array, make_mesh())
    pointers = {shard.data.unsafe_buffer_pointer() for shard in placed.addressable_shards}
    assert jax.device_count() > 1 and pointers == {array.ctypes.data}


def test_an_archive_is_read_as_numpy_reads_it(tmp_path):
    generator = np.random.default_rng(0)
    saved = {
        "x": generator.standard_normal((700, 600)).astype(np.float32),
        "columns_first": np.asfortranarray(generator.integers(0, 9, (5, 4))),
        "empty": np.zeros((0, 3), np.int32),
        "scalar": np.float64(3.5),
        "text": np.array("über"),
    }
    np.savez(tmp_path / "plain.npz", **saved)
    np.savez_compressed(tmp_path / "packed.npz", **saved)
    for name in ("plain.npz", "packed.npz"):
        found = memory.read_npz(tmp_path / name)
        assert found.keys() == saved.keys()
        for key, values in saved.items():
            np.testing.assert_array_equal(found[key], values)
        assert found["x"].ctypes.data % 64 == 0


def test_what_is_no_archive_is_refused(tmp_path):
    path = tmp_path / "file.npz"
    path.write_bytes(b"no archive")
    with pytest.raises(ValueError, match="not an .npz archive"):
        memory.read_npz(path)
    np.savez(path, objects=np.array([{}], object))
    with pytest.raises(ValueError, match="Python objects"):
        memory.read_npz(path)
