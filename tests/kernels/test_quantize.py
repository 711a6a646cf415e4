"""Uniform and ternary quantization: means, variances, and what becomes of extreme numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from quantization_reference import round_reference

from fljax_kernels.packing import pack_bits, unpack_bits
from fljax_kernels.quantize import (
    dequantize_range,
    dequantize_symmetric,
    euclidean_norm,
    largest_magnitude,
    quantize_range,
    quantize_symmetric,
    value_range,
)
from fljax_kernels.random_words import random_words
from fljax_kernels.ternary import deternarize, ternarize

pytestmark = pytest.mark.usefixtures("quick_compilation")

DRAWS = 10_000


def qsgd(x, key, level=3):
    norm = euclidean_norm(x)
    return dequantize_symmetric(quantize_symmetric(x, norm, level, key), norm, level)


def int8(x, key=None):
    scale = largest_magnitude(x)
    return dequantize_symmetric(quantize_symmetric(x, scale, 127, key), scale, 127)


def between(x, key, levels=4):
    bounds = value_range(x)
    return dequantize_range(quantize_range(x, *bounds, levels, key), *bounds, levels)


def terngrad(x, key):
    scale = largest_magnitude(x)
    return deternarize(ternarize(x, scale, key), scale)


def step(form, x):
    """Returns the distance between two levels."""
    x = np.asarray(x, np.float64)
    return {
        qsgd: np.linalg.norm(x) / 3,
        int8: np.abs(x).max() / 127,
        between: np.ptp(x) / 3,
        terngrad: np.abs(x).max(),
    }[form]


def variance_bound(form, size):
    """Returns omega, of E ||Q(x) - x||² <= omega ||x||², as the papers have it."""
    return {
        qsgd: min(size / 3**2, size**0.5 / 3),
        int8: size / (4 * 127**2),
        between: size / (2 * 3**2),
        terngrad: (size**0.5 - 1) / 2,
    }[form]


FORMS = (qsgd, int8, between, terngrad)
COMPILED = {form: jax.jit(form) for form in FORMS}


def draws(form, x):
    """Returns float64[DRAWS, d]: x quantized with as many keys."""
    keys = jax.random.split(jax.random.key(5), DRAWS)
    return np.array(jax.jit(jax.vmap(form, (None, 0)))(x, keys), np.float64)


def example(seed=0, size=11):
    x = np.random.default_rng(seed).standard_normal(size).astype(np.float32)
    x[0] = 0
    return x


@pytest.mark.parametrize("form", FORMS)
def test_the_mean_is_the_entry_and_the_variance_that_of_two_levels(form):
    x = example()
    got, width = draws(form, x), step(form, x)
    low = x.min() if form is between else 0
    fraction = (np.float64(x) - low) / width % 1
    variance = width**2 * fraction * (1 - fraction)
    tolerance = 4 * np.sqrt(variance / DRAWS) + 1e-6 * np.abs(x).max()
    assert (np.abs(got.mean(0) - x) < tolerance).all()
    squares = ((got - x) ** 2).sum(1)
    spread = 4 * squares.std() / np.sqrt(DRAWS)
    assert abs(squares.mean() - variance.sum()) < spread
    assert variance.sum() <= variance_bound(form, len(x)) * (np.float64(x) ** 2).sum()


@pytest.mark.parametrize(
    "form, x, share",
    [
        # one large entry among equal ones of 1 / (1 + sqrt(d)) of it
        (terngrad, np.array([1.0] + [0.2] * 15), 1.0),
        # opposite entries of full width, the others in the middle of two levels
        (between, np.array([1.0, -1.0] + [0.0] * 98), 0.98),
        # d = s²: entries of half a level, where the two bounds meet up to a constant
        (qsgd, np.array([1 / 6] * 9 + [np.sqrt(1 - 9 / 36)]), 0.2),
    ],
)
def test_variance_bounds_are_met(form, x, share):
    x = x.astype(np.float32)
    error = ((draws(form, x) - x) ** 2).sum(1).mean() / (x**2).sum()
    assert 0.97 * share < error / variance_bound(form, len(x)) < 1.03


@pytest.mark.parametrize("form", FORMS)
def test_entries_between_two_levels_become_one_of_them(form):
    x = example(1, 50)
    got = np.asarray(jax.jit(form)(x, jax.random.key(0)))
    assert (np.abs(got - x) < step(form, x) * (1 + 1e-5)).all()


def test_rounding_is_the_definition_on_a_grid_that_floats_hold():
    x = np.random.default_rng(2).integers(-1024, 1025, 300) / np.float32(1024)
    key = jax.random.key(1)
    codes = quantize_symmetric(x, np.float32(1), 64, key)
    expected = round_reference(64 * np.float64(x), np.array(random_words(key, 300)))
    np.testing.assert_array_equal(codes, expected + 64)
    nearest = quantize_symmetric(x, np.float32(1), 64)
    np.testing.assert_array_equal(nearest, np.round(64 * x) + 64)
    codes = quantize_range(x, np.float32(-1), np.float32(1), 129, key)
    np.testing.assert_array_equal(codes, expected + 64)


def test_nearest_rounding_errs_by_half_a_level_at_most():
    x = example(3, 200)
    assert (np.abs(int8(x) - x) <= step(int8, x) * (0.5 + 1e-4)).all()


@settings(max_examples=50, deadline=None)
@given(
    x=st.lists(
        st.floats(-(2.0**60), 2.0**60, width=32) | st.sampled_from([0.0, -0.0, 1e-40, -1e-45]),
        min_size=7,
        max_size=7,
    )
)
@pytest.mark.parametrize("form", FORMS)
def test_finite_vectors_stay_finite_and_within_their_levels(form, x):
    x = np.array(x, np.float32)
    got = np.float64(COMPILED[form](x, jax.random.key(9)))
    assert np.isfinite(got).all()
    # what is too small for the scale is zero
    allowed = step(form, x) * (1 + 1e-5) + 1e-6 * np.abs(x).max() + 1e-18
    assert (np.abs(got - x) <= allowed).all()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("value", [0.0, -3.25, 1e-42])
def test_equal_entries_and_single_ones(form, value):
    for size in (1, 6):
        x = np.full(size, value, np.float32)
        got = COMPILED[form](x, jax.random.key(2))
        if size == 1 or form in (between, terngrad, int8):
            np.testing.assert_allclose(got, x, rtol=1e-6, atol=1e-30)
        assert np.isfinite(got).all()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_not_finite_spreads_to_its_vector(form, value):
    x = np.stack([example(4), example(4)])
    x[1, 3] = value
    keys = jax.random.split(jax.random.key(0))
    got = np.array(jax.jit(form)(x, keys))
    assert np.isfinite(got[0]).all() and not np.isfinite(got[1]).any()


def test_entries_beyond_a_given_range_become_its_bounds():
    x = np.array([-9.0, -1.0, 1.0, 9.0], np.float32)
    codes = quantize_range(x, np.float32(-1), np.float32(1), 5, jax.random.key(0))
    assert list(codes) == [0, 0, 4, 4]
    assert list(quantize_symmetric(x, np.float32(1), 3)) == [0, 0, 6, 6]


@pytest.mark.parametrize("form", FORMS)
def test_batched_over_any_axes_is_one_after_another(form):
    x = np.random.default_rng(6).standard_normal((2, 3, 37)).astype(np.float32)
    keys = jax.random.split(jax.random.key(1), (2, 3))
    alone = COMPILED[form]
    together = alone(x, keys)
    np.testing.assert_array_equal(jax.jit(jax.vmap(form))(x, keys), together)
    for i in np.ndindex(2, 3):
        np.testing.assert_allclose(alone(x[i], keys[i]), together[i], rtol=1e-6)


def test_codes_fit_into_the_bits_that_are_documented():
    x, key = example(7, 100), jax.random.key(0)

    @jax.jit
    def coded(x, key):
        symmetric, ranges = {}, {}
        for level in (1, 3, 7, 100, 127):
            bits = (2 * level).bit_length()
            codes = quantize_symmetric(x, largest_magnitude(x), level, key)
            symmetric[level] = codes, unpack_bits(pack_bits(codes, bits), bits, 100)
        for levels in (2, 5, 256):
            ranges[levels] = quantize_range(x, *value_range(x), levels, key)
        return symmetric, ranges

    symmetric, ranges = coded(x, key)
    for level, (codes, again) in symmetric.items():
        assert codes.dtype == jnp.uint8
        assert np.abs(np.int32(codes) - level).max() == level
        np.testing.assert_array_equal(again, codes)
    for levels, codes in ranges.items():
        codes = np.asarray(codes)
        assert (codes.min(), codes.max()) == (0, levels - 1)


def test_double_precision_stays_double(x64):
    x = np.random.default_rng(8).standard_normal(40)
    for form in FORMS:
        got = COMPILED[form](jnp.asarray(x), jax.random.key(0))
        assert got.dtype == jnp.float64
        single = COMPILED[form](jnp.asarray(x, jnp.float32), jax.random.key(0))
        np.testing.assert_allclose(got, single, rtol=1e-5, atol=1e-6)


def test_half_precision_is_computed_in_float32():
    x = jnp.asarray(example(9), jnp.bfloat16)
    got = jax.jit(int8)(x)
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, np.float32(x), atol=0.51 * float(step(int8, np.float32(x))))


def test_other_numbers_of_levels_are_refused():
    x, one = np.ones(3, np.float32), np.float32(1)
    with pytest.raises(ValueError, match="level = 128; a symmetric grid has 1 to 127"):
        quantize_symmetric(x, one, 128)
    with pytest.raises(ValueError, match="levels = 1; a range has 2 to 256"):
        quantize_range(x, one, one, 1)
    with pytest.raises(ValueError, match="do not fit"):
        quantize_range(x, one, one, 4, jax.random.split(jax.random.key(0)))
