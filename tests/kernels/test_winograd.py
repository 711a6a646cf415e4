"""Winograd's form against float64 definitions, and where it is chosen."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fljax.benchmarks.kernels.reference import conv_gradients_reference, conv_reference
from fljax_kernels import conv_general_dilated, gemm_conv
from fljax_kernels.winograd import minimal_filter, winograd_conv

pytestmark = pytest.mark.usefixtures("quick_compilation")

LAYOUT = ("NHWC", "HWIO", "NHWC")


def normal(seed, *shapes, dtype=np.float64):
    generator = np.random.default_rng(seed)
    return [generator.standard_normal(shape).astype(dtype) for shape in shapes]


def convolve(form, x, w, padding="SAME", **options):
    return conv_general_dilated(
        x, w, (1, 1), padding, dimension_numbers=LAYOUT, form=form, **options
    )


def output_and_gradients(function, x, w, dy):
    @jax.jit
    def run(x, w, dy):
        y, pull_back = jax.vjp(function, x, w)
        return y, *pull_back(dy.astype(y.dtype))

    return run(x, w, dy)


@pytest.mark.parametrize("outputs, taps", [(2, 3), (4, 3), (2, 5), (4, 5), (3, 1), (3, 4)])
def test_a_minimal_filter_is_the_filter_with_fewer_products(outputs, taps):
    inputs, kernel = normal(0, (outputs + taps - 1,), (taps,))
    one = minimal_filter(outputs, taps)
    assert len(one.data) == outputs + taps - 1
    got = one.inverse @ ((one.kernel @ kernel) * (one.data @ inputs))
    np.testing.assert_allclose(got, np.correlate(inputs, kernel), rtol=1e-11, atol=1e-12)


pads = st.tuples(st.integers(0, 3), st.integers(0, 3))


@settings(max_examples=8, deadline=None)
@given(
    size=st.tuples(st.integers(5, 11), st.integers(5, 11)),
    kernel=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    channels=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    outputs=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    padding=st.tuples(pads, pads),
)
def test_output_and_both_gradients_are_the_definitions(size, kernel, channels, outputs, padding):
    x, w = normal(1, (2, *size, channels[0]), (*kernel, *channels), dtype=np.float32)
    expected = conv_reference(x, w, (1, 1), padding)
    (dy,) = normal(2, expected.shape)
    got = output_and_gradients(lambda x, w: winograd_conv(x, w, padding, outputs), x, w, dy)
    reference = (expected, *conv_gradients_reference(x, w, dy, (1, 1), padding))
    for matrix, definition in zip(got, reference, strict=True):
        assert matrix.dtype == np.float32
        np.testing.assert_allclose(matrix, definition, rtol=0, atol=1e-4 * np.abs(definition).max())


@pytest.mark.parametrize(
    "kernel, options",
    [((3, 3), {}), ((5, 5), {"groups": 2}), ((3, 5), {"padding": ((-1, 2), (0, -2))})],
)
def test_in_float64_all_forms_are_one_function(kernel, options, x64):
    options = dict(options)
    groups = options.pop("groups", 1)
    x, w = normal(3, (2, 11, 10, 4), (*kernel, 4 // groups, 6))
    options["feature_group_count"] = groups
    (dy,) = normal(4, jax.eval_shape(partial(convolve, "gemm", **options), x, w).shape)
    each = [
        output_and_gradients(partial(convolve, form, **options), x, w, dy)
        for form in ("grouped", "gemm", "winograd")
    ]
    for expected, gemm, winograd in zip(*each, strict=True):
        np.testing.assert_allclose(gemm, expected, rtol=1e-10, atol=1e-10)
        np.testing.assert_allclose(winograd, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    "form, size, bounds",
    [
        ("gemm", 3, (1e-6, 1e-6, 1e-6)),
        ("gemm", 5, (1e-6, 1e-6, 1e-6)),
        ("winograd", 3, (5e-6, 3e-6, 6e-6)),
        ("winograd", 5, (1e-5, 7e-6, 2e-5)),
    ],
)
def test_float32_errors_are_those_of_the_documentation(form, size, bounds, x64):
    x, w = normal(5, (4, 16, 16, 32), (size, size, 32, 32))
    (dy,) = normal(6, (4, 16, 16, 32))
    exact = output_and_gradients(partial(convolve, "gemm"), x, w, dy)
    x, w, dy = (array.astype(np.float32) for array in (x, w, dy))
    got = output_and_gradients(partial(convolve, form), x, w, dy)
    for single, double, bound in zip(got, exact, bounds, strict=True):
        assert single.dtype == np.float32
        assert np.abs(single - double).max() < bound * np.abs(double).max()


def test_clients_with_own_kernels_are_independent():
    x, w = normal(7, (3, 2, 6, 6, 2), (3, 3, 3, 2, 4), dtype=np.float32)

    def loss(x, w):
        return (convolve("winograd", x, w) ** 2).sum()

    each = jax.jit(jax.vmap(jax.value_and_grad(loss, argnums=(0, 1))))(x, w)
    one = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))
    alone = [one(x[i], w[i]) for i in range(3)]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *alone)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-3), each, stacked)


def test_gradients_of_gradients(x64):
    x, w, direction = normal(8, (1, 6, 6, 2), (3, 3, 2, 2), (3, 3, 2, 2))

    def second_order(form):
        slope = jax.grad(lambda w: (convolve(form, x, w) ** 3).sum())
        reverse = jax.grad(lambda w: (slope(w) * direction).sum())
        return jax.jit(lambda w: (reverse(w), jax.jvp(slope, (w,), (direction,))[1]))(w)

    gemm, winograd = second_order("gemm"), second_order("winograd")
    np.testing.assert_allclose(gemm[0], gemm[1], rtol=1e-9)
    np.testing.assert_allclose(winograd, gemm, rtol=1e-9)


def test_forward_mode_is_refused_by_winograd_and_not_by_the_other():
    x, w = normal(10, (1, 6, 6, 2), (3, 3, 2, 2), dtype=np.float32)
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jit(partial(jax.jvp, partial(convolve, "winograd")))((x, w), (x, w))
    y, dy = jax.jit(partial(jax.jvp, partial(convolve, "gemm")))((x, w), (x, w))
    np.testing.assert_allclose(dy, 2 * y, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "shapes, options, expected",
    [
        (((20, 26, 26, 32), (3, 3, 32, 64)), {"padding": "VALID"}, True),
        (((20, 14, 14, 32), (5, 5, 32, 64)), {}, True),
        (((20, 28, 28, 1), (3, 3, 1, 32)), {}, False),  # few channels
        (((20, 28, 28, 16), (3, 3, 16, 16)), {}, False),
        (((20, 5, 5, 64), (3, 3, 64, 64)), {}, False),  # tiles that stick out
        (((20, 16, 16, 64), (1, 1, 64, 64)), {}, False),
        (((20, 16, 16, 64), (7, 7, 64, 64)), {}, False),
        (((20, 16, 16, 64), (3, 3, 64, 64)), {"rhs_dilation": (2, 2)}, False),
    ],
)
def test_where_it_is_chosen(shapes, options, expected):
    x, w = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes)
    assert ("winograd_conv" in str(jax.make_jaxpr(partial(convolve, "auto", **options))(x, w))) == (
        expected
    )
    half = (jax.ShapeDtypeStruct(shape, jnp.bfloat16) for shape in shapes)
    assert "winograd_conv" not in str(jax.make_jaxpr(partial(convolve, "auto", **options))(*half))


def test_half_precision_is_computed_in_float32():
    x, w = (array.astype(jnp.bfloat16) for array in normal(11, (2, 8, 8, 8), (3, 3, 8, 4)))
    got = jax.jit(partial(convolve, "winograd"))(x, w)
    assert got.dtype == jnp.bfloat16
    exact = conv_reference(x, w, padding=((1, 1), (1, 1)))
    np.testing.assert_allclose(np.float32(got), exact, rtol=0.01, atol=1e-3)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda x, w: convolve("fft", x, w), "form = 'fft'; choose one of 'auto'"),
        (lambda x, w: convolve("winograd", x, w, rhs_dilation=(2, 1)), "dilation"),
        (
            lambda x, w: gemm_conv(x, w, (2, 2), "SAME", dimension_numbers=LAYOUT, form="winograd"),
            "stride 1",
        ),
    ],
)
def test_what_it_cannot_do_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(*normal(12, (2, 6, 6, 2), (3, 3, 2, 4), dtype=np.float32))
