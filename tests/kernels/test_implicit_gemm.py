"""Kernels for NVIDIA cards, interpreted on the CPU, against convolution's float64 definition."""

from __future__ import annotations

from functools import partial

import card
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fljax_kernels
from fljax.benchmarks.kernels.reference import conv_gradients_reference, conv_reference
from fljax_kernels.conv import LAYOUT, named_padding, output_size
from fljax_kernels.fused_conv import convolve, geometry_of

pytestmark = pytest.mark.usefixtures("quick_compilation")

# name: clients, batch, size, (channels, features), kernel, strides, padding, dilation, ending
CASES = {
    "one of all": (1, 1, (1, 1), (1, 1), (1, 1), (1, 1), "VALID", (1, 1), ""),
    "a bias alone": (1, 1, (3, 2), (1, 3), (1, 1), (1, 1), "VALID", (1, 1), "relu"),
    "gray": (2, 3, (9, 7), (1, 32), (3, 3), (1, 1), "VALID", (1, 1), "relu"),
    "color": (2, 2, (8, 9), (3, 6), (5, 5), (1, 1), "SAME", (1, 1), "pool"),
    "strides": (2, 2, (9, 8), (3, 5), (3, 3), (2, 2), "SAME", (1, 1), "relu"),
    "strides, pooled": (1, 2, (11, 13), (4, 6), (3, 2), (2, 1), ((0, 3), (1, 1)), (1, 1), "pool"),
    "shortcut": (2, 1, (5, 6), (32, 64), (1, 1), (2, 2), "VALID", (1, 1), ""),
    "wide": (3, 1, (6, 5), (32, 64), (3, 3), (1, 1), "VALID", (1, 1), "pool"),
    "wider": (1, 1, (5, 4), (64, 70), (3, 3), (1, 1), "SAME", (1, 1), "relu"),
    "dilation": (1, 2, (9, 8), (2, 3), (3, 2), (1, 1), ((2, 1), (0, 1)), (2, 3), ""),
    "crop": (1, 2, (8, 7), (3, 2), (3, 3), (1, 2), ((-1, 0), (1, -2)), (1, 1), "relu"),
    "many positions": (1, 2, (35, 34), (1, 2), (3, 3), (1, 1), "SAME", (1, 1), "relu"),
}


def normal(seed, *shapes):
    generator = np.random.default_rng(seed)
    return [generator.standard_normal(shape) for shape in shapes]


def definition(x, w, bias, dy, strides, pads, dilation, ending):
    """Returns (y, dx, dw, db) of one client, in float64."""
    if np.min(pads) < 0:
        cut = [(max(0, -low), max(0, -high)) for low, high in pads]
        kept = tuple(slice(a, n - b) for (a, b), n in zip(cut, x.shape[1:3], strict=True))
        pads = np.maximum(pads, 0)
        y, dx, *rest = definition(x[:, *kept], w, bias, dy, strides, pads, dilation, ending)
        return y, np.pad(dx, [(0, 0), *cut, (0, 0)]), *rest
    where = (strides, pads, dilation)
    y = conv_reference(x, w, *where)
    if not ending:
        return y, *conv_gradients_reference(x, w, dy, *where), None
    before = y + bias
    result, slopes = np.maximum(before, 0), np.zeros(before.shape)
    if ending == "pool":
        result = np.zeros(dy.shape)
        for index in np.ndindex(*dy.shape):
            image, row, column, feature = index
            window = before[image, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2, feature]
            result[index] = max(window.max(), 0)
            first = np.unravel_index(window.argmax(), (2, 2))
            slopes[image, 2 * row + first[0], 2 * column + first[1], feature] = dy[index]
    else:
        slopes = dy.copy()
    slopes[before <= 0] = 0
    return result, *conv_gradients_reference(x, w, slopes, *where), slopes.sum((0, 1, 2))


DTYPES = ("float32", "bfloat16")


@pytest.mark.parametrize(
    ("name", "dtype"),
    # by turns, and one with both
    [*zip(CASES, 6 * DTYPES, strict=True), ("color", "float32")],
)
def test_results_and_all_gradients_are_the_definition(name, dtype):
    clients, batch, size, channels, kernel, strides, padding, dilation, ending = CASES[name]
    shapes = (clients, batch, *size, channels[0]), (clients, *kernel, *channels)
    rounded = [jnp.asarray(a, dtype) for a in normal(0, *shapes, (clients, channels[1]))]
    x, w, bias = rounded
    of_one = [jax.ShapeDtypeStruct(a.shape[1:], dtype) for a in (x, w)]
    if isinstance(padding, str):
        padding = named_padding(*of_one, strides, padding, (1, 1), dilation)
    geometry = geometry_of(
        strides, padding, dilation, output_size(*of_one, strides, padding, dilation), ending
    )
    (dy,) = normal(1, (clients, batch, *geometry.result_size, channels[1]))
    dy = jnp.asarray(dy, dtype)

    @jax.jit
    @jax.vmap
    def run(x, w, bias, dy):
        def function(x, w, bias):
            return convolve(x, w, bias if ending else None, geometry, "highest", True)

        y, pull_back = jax.vjp(function, x, w, bias)
        return y, *pull_back(dy)

    found = run(x, w, bias, dy)
    exact = [np.asarray(a, np.float64) for a in (x, w, bias, dy)]
    for client in range(clients):
        expected = definition(*(a[client] for a in exact), strides, padding, dilation, ending)
        for got, wanted in zip(found, expected, strict=True):
            assert got.dtype == dtype
            got = np.asarray(got[client], np.float64)
            wanted = np.zeros_like(got) if wanted is None else wanted
            # sums are float32 in either; bfloat16 rounds results once
            error = 2e-6 if dtype == "float32" else 2**-8
            np.testing.assert_allclose(got, wanted, rtol=error, atol=error * abs(wanted).max())


def step(function, x, w, bias):
    """Returns the result and all gradients of each client."""

    def of_one(x, w, bias):
        y, pull_back = jax.vjp(function, x, w, bias)
        return y, *pull_back(jnp.cos(y))

    return jax.jit(jax.vmap(of_one)), (x, w, bias)


ENDINGS = {
    "none": lambda x, w, bias, form: fljax_kernels.conv_general_dilated(
        x, w, (1, 1), "SAME", dimension_numbers=LAYOUT, form=form
    ),
    "groups": lambda x, w, bias, form: fljax_kernels.conv_general_dilated(
        jnp.concatenate([x, x], 3),
        w,
        (2, 1),
        ((0, 1), (1, 0)),
        (1, 2),
        (2, 1),
        LAYOUT,
        2,
        form=form,
    ),
    "one axis": lambda x, w, bias, form: fljax_kernels.conv_general_dilated(
        x[:, 0], w[0], (2,), "SAME", dimension_numbers=("NWC", "WIO", "NWC"), form=form
    ),
    "relu": partial(fljax_kernels.conv_relu, padding="SAME"),
    "pool": partial(fljax_kernels.conv_relu, pool=True),
    "nothing to pool": partial(fljax_kernels.conv_relu, padding=((0, -3), (0, 0)), pool=True),
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_without_a_card_the_form_computes_from_matrix_products(ending):
    arguments = (a.astype(np.float32) for a in normal(2, (2, 3, 6, 7, 4), (2, 3, 3, 4, 6), (2, 6)))
    run, arguments = step(partial(ENDINGS[ending], form="pallas"), *arguments)
    expected, _ = step(partial(ENDINGS[ending], form="grouped"), *arguments)
    close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-4)
    jax.tree.map(close, run(*arguments), expected(*arguments))


@pytest.mark.parametrize(
    ("channels", "dtype"),
    [((1, 32), "float32"), ((32, 64), "bfloat16"), ((64, 6), "float32"), ((64, 6), "bfloat16")],
)
@pytest.mark.parametrize("ending", [name for name in ENDINGS if name != "nothing to pool"])
def test_kernels_lower_for_a_card(ending, channels, dtype):
    shapes = (3, 2, 9, 12, channels[0]), (3, 3, 3, *channels), (3, channels[1])
    run, arguments = step(
        partial(ENDINGS[ending], form="pallas"),
        *(jax.ShapeDtypeStruct(shape, dtype) for shape in shapes),
    )
    text = card.lowered(run, *arguments)
    # one for the result and one for each gradient
    assert card.kernels(text) == 3 and "stablehlo.convolution" not in text
