"""Convolution against its float64 NumPy definition and XLA's own gradients."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

import fljax_kernels
from fljax.benchmarks.kernels.reference import conv_gradients_reference, conv_reference
from fljax_kernels.conv import FORMS

pytestmark = pytest.mark.usefixtures("quick_compilation")

LAYOUT = ("NHWC", "HWIO", "NHWC")
# float32 sums of up to a few thousand products of standard normals
FLOAT32 = {"rtol": 1e-4, "atol": 1e-4}


def normal(seed, *shapes, dtype=np.float32):
    generator = np.random.default_rng(seed)
    return [generator.standard_normal(shape).astype(dtype) for shape in shapes]


def ours(x, w, strides=(1, 1), padding="VALID", **options):
    return fljax_kernels.conv_general_dilated(
        x, w, strides, padding, dimension_numbers=LAYOUT, **options
    )


def xla(x, w, strides=(1, 1), padding="VALID", **options):
    return lax.conv_general_dilated(x, w, strides, padding, dimension_numbers=LAYOUT, **options)


pads = st.tuples(st.integers(0, 3), st.integers(0, 3))
pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))


@settings(max_examples=15, deadline=None)
@given(
    size=st.tuples(st.integers(7, 10), st.integers(7, 10)),
    kernel=pairs,
    channels=pairs,
    groups=st.integers(1, 2),
    strides=pairs,
    dilation=pairs,
    padding=st.tuples(pads, pads),
)
def test_output_and_both_gradients_are_the_definitions(
    size, kernel, channels, groups, strides, dilation, padding
):
    x, w = normal(0, (2, *size, groups * channels[0]), (*kernel, channels[0], groups * channels[1]))
    where = (strides, padding, dilation, groups)
    expected = conv_reference(x, w, *where)
    (dy,) = normal(1, expected.shape)
    options = {"rhs_dilation": dilation, "feature_group_count": groups}

    @jax.jit
    def run(x, w, dy):
        y, pull_back = jax.vjp(lambda x, w: ours(x, w, strides, padding, **options), x, w)
        return y, pull_back(dy)

    got, gradients = run(x, w, dy)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected, **FLOAT32)
    for ours_, reference in zip(gradients, conv_gradients_reference(x, w, dy, *where), strict=True):
        np.testing.assert_allclose(ours_, reference, **FLOAT32)


CASES = {
    "valid": dict(padding="VALID"),
    "same": dict(padding="SAME"),
    "same_lower": dict(padding="SAME_LOWER", strides=(2, 1)),
    "strides": dict(padding="SAME", strides=(2, 3)),
    "dilation": dict(padding=((1, 0), (2, 1)), rhs_dilation=(2, 1)),
    "transposed": dict(padding=((2, 2), (1, 2)), lhs_dilation=(2, 3)),
    "crop": dict(padding=((-1, 0), (0, -2))),
    "groups": dict(padding="SAME", feature_group_count=2),
    "depthwise": dict(padding=((1, -1), (0, 2)), strides=(2, 1), feature_group_count=4),
}


@pytest.mark.parametrize("name", CASES)
def test_output_and_both_gradients_are_xlas_in_float64(name, x64):
    options = CASES[name]
    groups = options.get("feature_group_count", 1)
    x, w = normal(1, (2, 9, 8, 4), (3, 2, 4 // groups, 8 if groups == 4 else 6), dtype=np.float64)
    (dy,) = normal(2, xla(x, w, **options).shape, dtype=np.float64)

    @jax.jit
    def both(x, w, dy):
        def result(form):
            y, pull_back = jax.vjp(partial(form, **options), x, w)
            return y, pull_back(dy)

        return result(ours), result(xla)

    got, expected = both(x, w, dy)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-10, atol=1e-10), got, expected)


def test_gradients_in_float32_are_close_to_those_in_float64(x64):
    x, w = normal(3, (4, 12, 12, 8), (5, 5, 8, 16), dtype=np.float64)

    def gradients(dtype):
        loss = lambda x, w: (ours(x, w, padding="SAME") ** 2).sum()  # noqa: E731
        return jax.jit(jax.grad(loss, argnums=(0, 1)))(x.astype(dtype), w.astype(dtype))

    for single, double in zip(gradients(np.float32), gradients(np.float64), strict=True):
        assert single.dtype == np.float32
        np.testing.assert_allclose(single, double, rtol=0, atol=1e-5 * np.abs(double).max())


def test_clients_with_own_kernels_are_independent_and_never_a_convolution():
    x, w = normal(4, (3, 2, 6, 6, 2), (3, 3, 3, 2, 4))

    def loss(x, w):
        return (ours(x, w, padding="SAME") ** 2).sum()

    each = jax.jit(jax.vmap(jax.value_and_grad(loss, argnums=(0, 1))))
    assert "convolution" not in each.lower(x, w).as_text()
    of_one = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))
    alone = [of_one(x[i], w[i]) for i in range(3)]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *alone)
    jax.tree.map(partial(np.testing.assert_allclose, **FLOAT32), each(x, w), stacked)


def test_the_input_gradient_of_a_first_layer_is_not_computed():
    x, w = normal(5, (2, 6, 6, 1), (3, 3, 1, 4))

    def gradient(argnums):
        grad = jax.grad(lambda x, w: (ours(x, w) ** 2).sum(), argnums=argnums)
        return jax.jit(grad).lower(x, w).compile().as_text().count(" dot(")

    assert gradient(1) == gradient((0, 1)) - 1


def test_forward_mode_agrees_with_reverse_mode():
    x, w, dx, dw = normal(6, *[(2, 6, 6, 2), (3, 3, 2, 4)] * 2)

    @jax.jit
    def both_ways(x, w, dx, dw):
        y, dy = jax.jvp(ours, (x, w), (dx, dw))
        return y, dy, jax.vjp(ours, x, w)[1](y)

    y, dy, pulled = map(jax.device_get, both_ways(x, w, dx, dw))
    backward = sum((a * b).sum() for a, b in zip(pulled, (dx, dw), strict=True))
    np.testing.assert_allclose((dy * y).sum(), backward, rtol=1e-4)


@pytest.mark.parametrize("form", [form for form in FORMS if form != "grouped"])
@pytest.mark.parametrize("padding", ["VALID", ((2, 0), (-4, 0))])
def test_an_image_that_no_window_fits_into_has_an_empty_output(form, padding):
    x, w = normal(0, (2, 4, 6, 2), (5, 3, 2, 3))
    convolve = partial(ours, padding=padding, form=form)
    y, pull_back = jax.vjp(convolve, x, w)
    assert y.shape == xla(x, w, padding=padding).shape and y.size == 0 and y.dtype == x.dtype
    for gradient, of in zip(pull_back(y), (x, w), strict=True):
        np.testing.assert_array_equal(gradient, np.zeros_like(of))


def test_half_precision_is_summed_in_float32():
    x, w = jnp.full((1, 4, 4, 64), 0.1, jnp.bfloat16), jnp.ones((3, 3, 64, 1), jnp.bfloat16)
    got = jax.jit(ours)(x, w)
    assert got.dtype == jnp.bfloat16
    exact = 9 * 64 * float(x[0, 0, 0, 0])
    np.testing.assert_allclose(got.astype(np.float32), exact, rtol=2**-8)
    # no product of the gradients is wider: bfloat16 times float32 would be computed in float32
    pull_back = jax.make_jaxpr(lambda dy: jax.vjp(ours, x, w)[1](dy))(got)
    assert "dot_general" in str(pull_back) and "f32[1,4,4,64]" not in str(pull_back)
    wide = jax.eval_shape(partial(ours, preferred_element_type=jnp.float32), x, w)
    assert wide.dtype == np.float32


def test_a_flax_layer_takes_it_and_returns_the_same():
    (x,) = normal(7, (2, 8, 8, 3))
    options = {"strides": 2, "padding": "SAME", "rngs": nnx.Rngs(0)}
    layer = nnx.Conv(3, 4, (3, 3), **options)
    expected = layer(x)
    layer.conv_general_dilated = fljax_kernels.conv_general_dilated
    np.testing.assert_allclose(layer(x), expected, **FLOAT32)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda x, w: ours(x[:, 0, 0], w[0, 0]), "one spatial axis or two"),
        (lambda x, w: ours(x[:, 0], w[0], (1,)), "layout"),
        (lambda x, w: fljax_kernels.conv_general_dilated(x, w, (1, 1), "SAME"), "layout"),
        (lambda x, w: ours(x, w, feature_group_count=3), "do not fit 3"),
        (lambda x, w: ours(x, w, batch_group_count=2), "batch_group_count = 2"),
    ],
)
def test_what_it_cannot_do_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(*normal(8, (2, 6, 6, 2), (3, 3, 2, 4)))
