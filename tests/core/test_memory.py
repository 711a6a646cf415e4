"""Arrays that devices read in place."""

import jax
import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from fljax.core import memory
from fljax.engine.devices.execution import make_mesh
from fljax.engine.devices.placement import put_same


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
