"""The update of dense layers against its definition in float64, interpreted on the CPU."""

from functools import partial

import card
import jax
import numpy as np
import pytest

from fljax_kernels.dense_update import MAX_ROWS, dense_update

pytestmark = pytest.mark.usefixtures("quick_compilation")

# clients, rows, in, out
SHAPES = [(1, 1, 1, 1), (3, 5, 70, 10), (2, 20, 130, 300), (1, MAX_ROWS, 64, 128), (2, 7, 3, 65)]


def arguments(clients, rows, inputs, outputs):
    draw = np.random.default_rng(0)
    shapes = (clients, inputs, outputs), (clients, rows, inputs), (clients, rows, outputs)
    return *(draw.standard_normal(shape).astype(np.float32) for shape in shapes), -draw.random(
        clients
    ).astype(np.float32)


def update(**options):
    return jax.jit(jax.vmap(partial(dense_update, **options)))


@pytest.mark.parametrize("interpret", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_weights_and_gradient_are_the_definition(shape, interpret):
    w, x, dy, scale = arguments(*shape)
    found, dx = update(precision="highest", interpret=interpret)(w, x, dy, scale)
    exact = [np.asarray(a, np.float64) for a in (w, x, dy, scale)]
    gradient = np.einsum("lbi,lbo->lio", *exact[1:3])
    close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)
    close(found, exact[0] + exact[3][:, None, None] * gradient)
    close(dx, np.einsum("lbo,lio->lbi", exact[2], exact[0]))
    alone = update(precision="highest", interpret=interpret, passes_back=False)
    again, nothing = alone(w, x, dy, scale)
    close(again, found)
    assert nothing is None


@pytest.mark.parametrize("interpret", [True, False])
def test_with_scale_0_weights_stay_whatever_the_gradient(interpret):
    w, x, dy, scale = arguments(2, 3, 20, 17)
    dy[1], scale[1] = np.nan, 0
    found, dx = update(interpret=interpret)(w, x, dy, scale)
    np.testing.assert_array_equal(found[1], w[1])
    assert np.isfinite(found[0]).all() and np.isnan(dx[1]).all()


def test_a_client_alone_needs_no_axis():
    w, x, dy, scale = (a[0] for a in arguments(1, 4, 9, 5))
    found, dx = dense_update(w, x, dy, scale, "highest", interpret=True)
    np.testing.assert_allclose(found, w + scale * x.T @ dy, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(dx, dy @ w.T, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [*SHAPES, (2, MAX_ROWS + 1, 9, 5)])
def test_a_kernel_lowers_for_a_card_where_memory_decides(shape):
    text = card.lowered(update(), *arguments(*shape))
    assert card.kernels(text) == (shape[1] <= MAX_ROWS)
    # weights are written where they lie
    assert ("output_operand_alias" in text) == (shape[1] <= MAX_ROWS)
