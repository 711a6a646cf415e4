"""Top-k selection against a sort: every float, every tie, every k."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from selection_reference import top_k_reference

from fljax_kernels import top_k, top_k_mask
from fljax_kernels.compaction import true_indices

pytestmark = pytest.mark.usefixtures("quick_compilation")

# few sizes and k, so that few programs are compiled, whatever hypothesis draws
CASES = [(1, 1), (2, 1), (33, 5), (129, 1), (129, 128), (300, 5), (300, 77), (300, 300)]


@partial(jax.jit, static_argnums=1)
def selected(x, ks):
    return [(top_k(x, k), top_k_mask(x, k)) for k in ks]


def check(x, *ks):
    for ((values, indices), mask), k in zip(selected(x, ks), ks, strict=True):
        expected = top_k_reference(x, k)
        assert indices.dtype == jnp.int32 and values.dtype == x.dtype
        np.testing.assert_array_equal(indices, expected)
        np.testing.assert_array_equal(values, x[expected])
        np.testing.assert_array_equal(np.nonzero(mask)[0], expected)


@pytest.mark.parametrize("d, k", CASES)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_float32(d, k, data):
    floats = st.floats(width=32, allow_nan=True, allow_infinity=True, allow_subnormal=True)
    few = st.sampled_from([0.0, -0.0, 1.0, -1.0, np.float32(1e-45), np.nan, -np.nan, np.inf])
    elements = data.draw(st.sampled_from([floats, few]))
    check(data.draw(arrays.arrays(np.float32, d, elements=elements)), k)


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_any_float64(data):
    with jax.enable_x64(True):
        check(data.draw(arrays.arrays(np.float64, 33, elements=st.floats())), 5)


def test_float64_that_32_bits_do_not_tell_apart():
    nans = np.array([0x7FF8 << 48, 0xFFF8 << 48 | 1, 0x7FF8 << 48 | 2], np.uint64).view(float)
    near = [1.0, -1.0, 1 + 2.0**-52, -1 - 2.0**-52, 1 - 2.0**-53, 1 + 2.0**-30]
    for seed, few in enumerate((near, [*nans, np.inf], [1e300, 1e301], [5e-324, -1e-320, 0.0])):
        with jax.enable_x64(True):
            check(np.random.default_rng(seed).choice(few, 33), 5)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_half_precision(dtype):
    x = np.random.default_rng(0).standard_normal(1000).astype(dtype)
    check(x, 1, 100, 999)


DISTRIBUTIONS = {
    "normal": lambda r, d: r.standard_normal(d),
    "many scales": lambda r, d: r.standard_normal(d) * np.exp(8 * r.standard_normal(d)),
    "few values": lambda r, d: np.round(3 * r.standard_normal(d)),
    "mostly zero": lambda r, d: r.standard_normal(d) * (r.random(d) < 0.003),
    "zero": lambda r, d: np.zeros(d),
    "sorted": lambda r, d: np.sort(r.standard_normal(d)),
    "one outlier": lambda r, d: np.where(np.arange(d) == d // 3, 1e30, r.standard_normal(d)),
    "denormal": lambda r, d: r.integers(-200, 200, d) * 1e-45,
    "some NaN": lambda r, d: np.where(r.random(d) < 0.02, np.nan, r.standard_normal(d)),
}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_arrays_that_are_sampled_first(name):
    d = 40_001
    x = DISTRIBUTIONS[name](np.random.default_rng(1), d).astype(np.float32)
    check(x, 1, 400, 20_000)


@pytest.mark.parametrize("name", ["normal", "few values"])
def test_leading_axes_and_vmap_are_a_loop(name):
    x = DISTRIBUTIONS[name](np.random.default_rng(2), 6 * 257).astype(np.float32)
    x = x.reshape(2, 3, 257)
    values, indices = jax.jit(lambda x: top_k(x, 20))(x)
    mapped = jax.jit(jax.vmap(lambda x: top_k(x, 20)))(x)
    np.testing.assert_array_equal(mapped[0], values)
    np.testing.assert_array_equal(mapped[1], indices)
    assert values.shape == indices.shape == (2, 3, 20)
    for place in np.ndindex(2, 3):
        np.testing.assert_array_equal(indices[place], top_k_reference(x[place], 20))


def test_derivative_of_what_is_kept_is_the_mask():
    x = jnp.asarray(np.random.default_rng(3).standard_normal(50), jnp.float32)

    @jax.jit
    def gradient_and_mask(x):
        kept = lambda x: jnp.where(top_k_mask(x, 7), x, 0).sum()  # noqa: E731
        return jax.grad(kept)(x), top_k_mask(x, 7)

    gradient, mask = gradient_and_mask(x)
    np.testing.assert_array_equal(gradient, np.float32(mask))


@pytest.mark.parametrize("d", [1, 32, 5000])
def test_true_indices(d):
    masks = np.random.default_rng(4).random(d) < np.array([[0.002], [0.3], [1.0]])
    masks[:, d // 2] = True

    @jax.jit
    def found(masks_):
        counts = map(int, masks.sum(1))
        return [true_indices(mask, count) for mask, count in zip(masks_, counts, strict=True)]

    for got, mask in zip(found(masks), masks, strict=True):
        np.testing.assert_array_equal(got, np.nonzero(mask)[0])


@pytest.mark.parametrize("k", [0, -1, 6])
def test_k_out_of_range_is_refused(k):
    with pytest.raises(ValueError, match=f"k = {k} .* choose k from 1"):
        top_k(jnp.ones(5), k)


def test_other_dtypes_are_refused():
    with pytest.raises(TypeError, match="int32"):
        top_k_mask(jnp.arange(5), 2)
