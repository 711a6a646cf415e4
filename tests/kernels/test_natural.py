"""Natural compression: unbiased on the bits, nine of which come back from the wire."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from quantization_reference import natural_reference

from fljax_kernels import natural
from fljax_kernels.packing import pack_bits
from fljax_kernels.random_words import random_words

pytestmark = pytest.mark.usefixtures("quick_compilation")

DRAWS = 10_000

round_to_powers_of_two = jax.jit(natural.round_to_powers_of_two)
pack_powers_of_two = jax.jit(natural.pack_powers_of_two)
unpack_powers_of_two = jax.jit(natural.unpack_powers_of_two, static_argnums=1)
words = jax.jit(random_words, static_argnums=1)


def draws(x):
    keys = jax.random.split(jax.random.key(3), DRAWS)
    rounded = jax.jit(jax.vmap(round_to_powers_of_two, (None, 0)))(x, keys)
    return np.array(rounded).astype(np.float64)


@settings(max_examples=50, deadline=None)
@given(
    x=st.lists(
        st.floats(-(2.0**126), 2.0**126, width=32) | st.floats(-(2.0**-126), 2.0**-126, width=32),
        min_size=9,
        max_size=9,
    ),
    seed=st.integers(0, 2**31),
)
def test_rounding_is_the_definition_and_comes_back(x, seed):
    x, key = np.array(x, np.float32), jax.random.key(seed)
    got = np.array(round_to_powers_of_two(x, key))
    expected = natural_reference(x, np.array(words(key, 9)))
    np.testing.assert_array_equal(got, expected)
    packed = pack_powers_of_two(got)
    assert packed.dtype == jnp.uint8 and packed.shape == (9 + 2,)
    np.testing.assert_array_equal(unpack_powers_of_two(packed, 9), got)


def test_the_mean_is_the_entry_and_the_variance_an_eighth_at_most():
    x = np.array([0.3, -0.7, 1.0, 5.5, -1e-30, 4 / 3, 1e30, 2.0**-127, 3e-39], np.float32)
    got, exact = draws(x), x.astype(np.float64)
    # two powers of two, low and 2 low, or 0 and 2 ** -126
    low = np.where(np.abs(exact) < 2.0**-126, 0, 2.0 ** np.floor(np.log2(np.abs(exact))))
    high = np.where(low == 0, 2.0**-126, 2 * low)
    variance = (np.abs(exact) - low) * (high - np.abs(exact))
    assert (np.abs(got.mean(0) - exact) <= 4 * np.sqrt(variance / DRAWS)).all()
    normal = low > 0
    assert (variance[normal] <= exact[normal] ** 2 / 8 * (1 + 1e-6)).all()
    squares = ((got - exact) / exact)[:, 5] ** 2
    assert abs(squares.mean() - 1 / 8) < 4 * squares.std() / np.sqrt(DRAWS)


def test_numbers_without_two_powers_next_to_them():
    largest = np.finfo(np.float32).max
    x = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, -np.nan, largest, -largest], np.float32)
    for seed in range(5):
        got = round_to_powers_of_two(x, jax.random.key(seed))
        np.testing.assert_array_equal(
            got, [0, 0, np.inf, -np.inf, np.nan, np.nan, 2.0**127, -(2.0**127)]
        )
        back = unpack_powers_of_two(pack_powers_of_two(got), len(x))
        np.testing.assert_array_equal(back, got)
        assert not np.signbit(back[1])


def test_the_wire_has_exponents_then_signs():
    x = np.array([1.0, -2.0, 0.0, -0.0, np.nan, -0.5], np.float32)
    packed = np.array(pack_powers_of_two(x))
    assert list(packed[:6]) == [127, 128, 0, 0, 0, 126]
    np.testing.assert_array_equal(packed[6:], pack_bits(np.array([0, 1, 0, 0, 1, 1]), 1))
    with pytest.raises(ValueError, match="6 powers of two are 7 bytes, not 6"):
        unpack_powers_of_two(packed[:6], 6)


def test_all_codes_but_subnormal_ones_are_numbers():
    exponents = np.tile(np.arange(256, dtype=np.uint8), 2)
    packed = np.concatenate([exponents, pack_bits(np.arange(512) >= 256, 1)])
    numbers = np.array(unpack_powers_of_two(packed, 512))
    assert len(np.unique(numbers)) == 512
    np.testing.assert_array_equal(pack_powers_of_two(numbers), packed)


def test_batched_over_any_axes_is_one_after_another():
    x = np.random.default_rng(1).standard_normal((2, 3, 13)).astype(np.float32)
    keys = jax.random.split(jax.random.key(2), (2, 3))
    together = np.array(round_to_powers_of_two(x, keys))
    mapped = jax.vmap(round_to_powers_of_two)(x, keys)
    np.testing.assert_array_equal(mapped, together)
    packed = pack_powers_of_two(together)
    for i in np.ndindex(2, 3):
        np.testing.assert_array_equal(round_to_powers_of_two(x[i], keys[i]), together[i])
        np.testing.assert_array_equal(pack_powers_of_two(together[i]), packed[i])
    np.testing.assert_array_equal(unpack_powers_of_two(packed, 13), together)


def test_double_and_half_precision_are_rounded_to_float32(x64):
    x, key = np.array([0.3, -7.0, 1e300]), jax.random.key(0)
    got = round_to_powers_of_two(jnp.asarray(x), key)
    assert got.dtype == jnp.float32 and got[2] == np.inf
    half = round_to_powers_of_two(jnp.asarray(x[:2], jnp.bfloat16), key)
    assert half.dtype == jnp.float32
