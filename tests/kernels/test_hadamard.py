"""The Walsh-Hadamard transform against butterflies in float64, and rotations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quantization_reference import hadamard_reference
from scipy.linalg import hadamard

from fljax_kernels.hadamard import hadamard_transform, next_power_of_two, rotate, rotate_back

pytestmark = pytest.mark.usefixtures("quick_compilation")


def normal(*shape, seed=0, dtype=np.float32):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


@pytest.mark.parametrize("exponent", [0, 1, 2, 5, 6, 7, 11])
def test_it_is_the_definition(exponent, x64):
    x = normal(2**exponent, dtype=np.float64)
    got = hadamard_transform(jnp.asarray(x))
    assert got.dtype == jnp.float64
    np.testing.assert_allclose(got, hadamard_reference(x), rtol=0, atol=1e-12)
    if exponent < 8:
        matrix = hadamard(2**exponent) / 2 ** (exponent / 2)
        np.testing.assert_allclose(got, matrix @ x, rtol=0, atol=1e-12)


@pytest.mark.parametrize("exponent", [13, 17])
def test_float32_errors_are_those_of_the_documentation(exponent):
    x = normal(2**exponent, seed=1)
    error = np.abs(jax.jit(hadamard_transform)(x) - hadamard_reference(x))
    assert error.max() < 2e-6 and error.mean() < 2e-7


def test_it_is_its_own_inverse_and_keeps_lengths():
    x = normal(3, 512, seed=2)
    y = hadamard_transform(x)
    np.testing.assert_allclose(hadamard_transform(y), x, rtol=0, atol=2e-6)
    np.testing.assert_allclose((y**2).sum(1), (x**2).sum(1), rtol=1e-5)


def test_leading_axes_are_vectors_by_themselves():
    x, keys = normal(2, 3, 64, seed=3), jax.random.split(jax.random.key(0), (2, 3))
    together = rotate(x, keys)
    mapped = jax.vmap(jax.vmap(rotate))(x, keys)
    np.testing.assert_allclose(mapped, together, rtol=0, atol=1e-6)
    for i in np.ndindex(2, 3):
        np.testing.assert_allclose(rotate(x[i], keys[i]), together[i], rtol=0, atol=1e-6)


def test_a_rotation_is_undone_by_its_own_key_alone():
    x, keys = normal(256, seed=4), jax.random.split(jax.random.key(1))
    rotated = jax.jit(rotate)(x, keys[0])
    np.testing.assert_allclose(rotate_back(rotated, keys[0]), x, rtol=0, atol=2e-6)
    other = rotate_back(rotated, keys[1])
    assert abs(np.corrcoef(other, x)[0, 1]) < 0.3


def test_rotation_spreads_one_entry_evenly():
    x = np.zeros(1024, np.float32)
    x[77] = 32
    np.testing.assert_allclose(np.abs(rotate(x, jax.random.key(2))), 1, rtol=1e-5)
    # and equal entries, which the transform alone would gather into one
    x = np.ones(1024, np.float32)
    assert np.abs(rotate(x, jax.random.key(2))).max() < 6
    assert np.abs(hadamard_transform(x)).max() == pytest.approx(32, rel=1e-5)


def test_every_sign_is_random_and_unbiased():
    keys = jax.random.split(jax.random.key(3), 10_000)
    signs = hadamard_transform(jax.vmap(rotate, (None, 0))(np.ones(8, np.float32), keys))
    np.testing.assert_allclose(np.abs(signs), 1, rtol=1e-5)
    assert (np.abs(np.mean(signs, 0)) < 4 / 100).all()
    shared = np.array(signs).T @ np.array(signs) / len(signs)
    assert (np.abs(shared - np.eye(8)) < 4 / 100 + 1e-5).all()


def test_missing_numbers_spread_and_half_precision_is_kept():
    x = normal(64, seed=5)
    half = hadamard_transform(jnp.asarray(x, jnp.float16))
    assert half.dtype == jnp.float16
    np.testing.assert_allclose(np.float32(half), hadamard_reference(x), atol=0.01)
    large = hadamard_transform(jnp.full(1024, 1000, jnp.float16))
    np.testing.assert_allclose(np.float32(large), [32000] + [0] * 1023, atol=0.1)
    x[3] = np.nan
    assert np.isnan(hadamard_transform(x)).all()


def test_other_lengths_are_refused_with_the_length_to_pad_to():
    assert [next_power_of_two(size) for size in (1, 2, 3, 64, 65)] == [1, 2, 4, 64, 128]
    with pytest.raises(ValueError, match="100 entries .* power of two, 128"):
        hadamard_transform(np.zeros(100, np.float32))
