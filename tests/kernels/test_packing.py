"""Packing: the bytes are the definition's, and come back as what they were."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from quantization_reference import pack_bits_reference, pack_trits_reference

from fljax_kernels.packing import pack_bits, packed_size, unpack_bits
from fljax_kernels.sign import mean_magnitude, pack_signs, unpack_signs
from fljax_kernels.ternary import pack_trits, unpack_trits

pytestmark = pytest.mark.usefixtures("quick_compilation")


def integers(shape, below):
    return np.random.default_rng(sum(shape)).integers(0, below, shape).astype(np.uint8)


@settings(max_examples=25, deadline=None)
@given(size=st.integers(1, 70), bits=st.integers(1, 8))
def test_bytes_are_the_definition_and_come_back(size, bits):
    values = integers((size,), 1 << bits)
    packed = jax.jit(pack_bits, static_argnums=1)(values, bits)
    assert packed.dtype == jnp.uint8 and packed.shape == (packed_size(size, bits),)
    assert packed_size(size, bits) == -(-size * bits // 8)
    np.testing.assert_array_equal(packed, pack_bits_reference(values, bits))
    got = jax.jit(unpack_bits, static_argnums=(1, 2))(packed, bits, size)
    np.testing.assert_array_equal(got, values)


@settings(max_examples=20, deadline=None)
@given(size=st.integers(1, 40))
def test_trits_are_the_definition_and_come_back(size):
    trits = integers((size,), 3)
    packed = jax.jit(pack_trits)(trits)
    assert packed.dtype == jnp.uint8
    np.testing.assert_array_equal(packed, pack_trits_reference(trits))
    np.testing.assert_array_equal(jax.jit(unpack_trits, static_argnums=1)(packed, size), trits)


def test_all_bytes_of_five_trits_come_back():
    packed = np.arange(243, dtype=np.uint8)
    np.testing.assert_array_equal(pack_trits(unpack_trits(packed, 5 * 243)), packed)


@pytest.mark.parametrize("bits", [1, 5, 6])
def test_any_leading_axes(bits):
    values = integers((2, 3, 21), 1 << bits)
    packed = pack_bits(values, bits)
    one_by_one = jax.vmap(jax.vmap(partial(pack_bits, bits=bits)))(values)
    np.testing.assert_array_equal(packed, one_by_one)
    np.testing.assert_array_equal(packed[1, 2], pack_bits_reference(values[1, 2], bits))
    np.testing.assert_array_equal(unpack_bits(packed, bits, 21), values)
    trits = values % 3
    np.testing.assert_array_equal(pack_trits(trits), jax.vmap(jax.vmap(pack_trits))(trits))
    np.testing.assert_array_equal(unpack_trits(pack_trits(trits), 21), trits)


def test_integers_of_any_type_are_packed_and_higher_bits_dropped():
    values = np.array([1, 6, 3 + 8, 4, 7])
    np.testing.assert_array_equal(pack_bits(values, 3), pack_bits_reference(values & 7, 3))
    np.testing.assert_array_equal(pack_bits(values > 3, 1), pack_bits_reference(values > 3, 1))


def test_no_values_are_no_bytes():
    assert pack_bits(np.zeros((2, 0), np.uint8), 3).shape == (2, 0)
    assert unpack_bits(np.zeros((2, 0), np.uint8), 3, 0).shape == (2, 0)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="bits = 9; a packed value has 1 to 8 bits"):
        pack_bits(np.zeros(3, np.uint8), 9)
    with pytest.raises(ValueError, match="10 values of 3 bits are 4 bytes, not 3"):
        unpack_bits(np.zeros(3, np.uint8), 3, 10)
    with pytest.raises(ValueError, match="10 trits are 2 bytes, not 3"):
        unpack_trits(np.zeros(3, np.uint8), 10)


@settings(max_examples=20, deadline=None)
@given(
    x=st.lists(
        st.floats(width=32, allow_nan=False, allow_subnormal=False), min_size=13, max_size=13
    )
)
def test_signs_come_back_and_zero_is_positive(x):
    x = np.array(x, np.float32)
    packed = jax.jit(pack_signs)(x)
    np.testing.assert_array_equal(packed, pack_bits_reference(x >= 0, 1))
    got = unpack_signs(packed, np.float32(1.5), 13)
    np.testing.assert_array_equal(got, np.where(x >= 0, np.float32(1.5), np.float32(-1.5)))


def test_scaled_signs_are_the_nearest_multiple_of_the_signs():
    x = np.random.default_rng(0).standard_normal((3, 50)).astype(np.float32)
    scale = mean_magnitude(x)
    np.testing.assert_allclose(scale, np.abs(np.float64(x)).mean(1), rtol=1e-6)
    error = ((unpack_signs(pack_signs(x), scale, 50) - x) ** 2).sum(1)
    np.testing.assert_allclose(error, (x**2).sum(1) - np.abs(x).sum(1) ** 2 / 50, rtol=1e-5)


def test_a_missing_number_is_told_by_the_scale():
    x = np.array([1, np.nan, -2], np.float32)
    assert list(unpack_signs(pack_signs(x), np.float32(1), 3)) == [1, -1, -1]
    assert np.isnan(unpack_signs(pack_signs(x), mean_magnitude(x), 3)).all()


def test_means_of_half_precision_are_float32_and_of_double_are_double(x64):
    assert mean_magnitude(jnp.full((4,), 1e-3, jnp.float16)).dtype == jnp.float32
    assert mean_magnitude(jnp.full((4,), 1e-3, jnp.float64)).dtype == jnp.float64
