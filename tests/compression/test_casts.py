"""Casts against NumPy's own."""

import compressor_laws as laws
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from fljax import compression as c


@pytest.mark.parametrize(
    ("code", "dtype"), [(c.bf16(), ml_dtypes.bfloat16), (c.fp16(), np.float16)]
)
def test_casts_round_to_nearest_even(code, dtype):
    x = np.concatenate([laws.vector(500), [1e-6, -3e-8, 1 + 2.0**-8, 1 + 3 * 2.0**-8]])
    x = x.astype(np.float32)
    compiled = jax.jit(lambda x: code.decode(code.encode(laws.KEY, x), x.size))
    # inside one program, where a compiler may find that two casts cancel
    np.testing.assert_array_equal(compiled(x), x.astype(dtype).astype(np.float32))


@pytest.mark.parametrize("code", [c.bf16(), c.fp16()])
def test_numbers_out_of_range_become_the_largest(code):
    received = laws.roundtrip(code, np.array([3.4e38, -3.4e38], np.float32))
    assert np.isfinite(received).all() and received[0] == -received[1] > 6e4


def test_identity_changes_nothing():
    x = laws.vector(57)
    np.testing.assert_array_equal(laws.roundtrip(c.identity(), x), x)
    assert int(c.identity().bits({"values": jnp.zeros(57)}, 57)) == 57 * 32
