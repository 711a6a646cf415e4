"""Arrays that come together are the same arrays."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fljax_kernels.ordered import together


@pytest.mark.parametrize("odd", [0.0, -0.0, 1.0, 5.0, np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_every_bit_stays(dtype, odd):
    values = np.random.default_rng(0).standard_normal((2, 3, 4))
    values[:, 0, 0] = odd
    tree = {"a": jnp.asarray(values[0], dtype), "b": jnp.asarray(values[1, 0, 0], dtype)}
    got = jax.jit(together)(tree)
    for name, leaf in tree.items():
        assert got[name].dtype == leaf.dtype
        assert np.asarray(got[name]).tobytes() == np.asarray(leaf).tobytes()


def test_lanes_side_by_side_single_arrays_and_none():
    rows = np.random.default_rng(1).standard_normal((3, 4)).astype(np.float32)
    got = jax.jit(jax.vmap(lambda row: together((row, row.sum()))[0]))(rows)
    np.testing.assert_array_equal(got, rows)
    assert together({}) == {}
    assert together([jnp.float32(2)]) == [2]
    empty, full = together((jnp.zeros((0, 3)), jnp.ones(2)))
    assert empty.shape == (0, 3) and (full == 1).all()
