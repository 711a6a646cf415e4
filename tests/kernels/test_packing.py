"""Packing: the bytes are the definition's, and come back as what they were."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.tree_util import Partial
from quantization_reference import pack_bits_reference, pack_trits_reference

from fljax_kernels.packing import pack_bits, packed_size, unpack_bits
from fljax_kernels.sign import mean_magnitude, pack_signs, unpack_signs
from fljax_kernels.ternary import pack_trits, unpack_trits

pytestmark = pytest.mark.usefixtures("quick_compilation")


def integers(shape, below):
    return np.random.default_rng(sum(shape)).integers(0, below, shape).astype(np.uint8)


# what is left over of a group of 1, 2, 4 or 8 values, and of bytes
@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 8, 9, 14, 23, 36, 64, 70])
def test_bytes_are_the_definition_and_come_back(size):
    values = {bits: integers((size,), 1 << bits) for bits in range(1, 9)}

    @jax.jit
    def there_and_back(values):
        packed = {bits: pack_bits(value, bits) for bits, value in values.items()}
        return packed, {bits: unpack_bits(packed[bits], bits, size) for bits in packed}

    packed, got = there_and_back(values)
    for bits, value in values.items():
        assert packed[bits].dtype == jnp.uint8
        assert packed[bits].shape == (packed_size(size, bits),) == (-(-size * bits // 8),)
        np.testing.assert_array_equal(packed[bits], pack_bits_reference(value, bits))
        np.testing.assert_array_equal(got[bits], value)


def test_trits_are_the_definition_and_come_back():
    trits = {size: integers((size,), 3) for size in (*range(1, 13), 24, 25, 40)}

    @jax.jit
    def there_and_back(trits):
        packed = {size: pack_trits(value) for size, value in trits.items()}
        return packed, {size: unpack_trits(packed[size], size) for size in packed}

    packed, got = there_and_back(trits)
    for size, value in trits.items():
        assert packed[size].dtype == jnp.uint8
        np.testing.assert_array_equal(packed[size], pack_trits_reference(value))
        np.testing.assert_array_equal(got[size], value)


def test_all_bytes_of_five_trits_come_back():
    packed = np.arange(243, dtype=np.uint8)
    again = jax.jit(lambda packed: pack_trits(unpack_trits(packed, 5 * 243)))(packed)
    np.testing.assert_array_equal(again, packed)


@pytest.mark.parametrize("bits", [1, 5, 6])
def test_any_leading_axes(bits):
    values = integers((2, 3, 21), 1 << bits)

    @jax.jit
    def there_and_back(values, pack, unpack):
        packed = pack(values)
        return packed, jax.vmap(jax.vmap(pack))(values), unpack(packed)

    packed, one_by_one, got = there_and_back(
        values, Partial(partial(pack_bits, bits=bits)), Partial(lambda p: unpack_bits(p, bits, 21))
    )
    np.testing.assert_array_equal(packed, one_by_one)
    np.testing.assert_array_equal(packed[1, 2], pack_bits_reference(values[1, 2], bits))
    np.testing.assert_array_equal(got, values)
    trits = values % 3
    packed, one_by_one, got = there_and_back(
        trits, Partial(pack_trits), Partial(lambda p: unpack_trits(p, 21))
    )
    np.testing.assert_array_equal(packed, one_by_one)
    np.testing.assert_array_equal(got, trits)


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
    got = jax.jit(unpack_signs, static_argnums=2)(packed, np.float32(1.5), 13)
    np.testing.assert_array_equal(got, np.where(x >= 0, np.float32(1.5), np.float32(-1.5)))


def test_scaled_signs_are_the_nearest_multiple_of_the_signs():
    x = np.random.default_rng(0).standard_normal((3, 50)).astype(np.float32)

    @jax.jit
    def scaled_signs(x):
        scale = mean_magnitude(x)
        return scale, unpack_signs(pack_signs(x), scale, 50)

    scale, got = scaled_signs(x)
    np.testing.assert_allclose(scale, np.abs(np.float64(x)).mean(1), rtol=1e-6)
    error = ((np.asarray(got) - x) ** 2).sum(1)
    np.testing.assert_allclose(error, (x**2).sum(1) - np.abs(x).sum(1) ** 2 / 50, rtol=1e-5)


def test_a_missing_number_is_told_by_the_scale():
    x = np.array([1, np.nan, -2], np.float32)
    assert list(unpack_signs(pack_signs(x), np.float32(1), 3)) == [1, -1, -1]
    assert np.isnan(unpack_signs(pack_signs(x), mean_magnitude(x), 3)).all()


def test_means_of_half_precision_are_float32_and_of_double_are_double(x64):
    assert mean_magnitude(jnp.full((4,), 1e-3, jnp.float16)).dtype == jnp.float32
    assert mean_magnitude(jnp.full((4,), 1e-3, jnp.float64)).dtype == jnp.float64
