"""Kernels for NVIDIA cards, interpreted on the CPU, against the definition of an LSTM."""

from functools import partial

import card
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from kernels.test_lstm import definition

from fljax_kernels import lstm_times
from fljax_kernels.lstm import lstm

pytestmark = pytest.mark.usefixtures("quick_compilation")

# clients, times, rows, hidden: one of all, less than a tile, more than one of each, whole tiles
SHAPES = [(1, 1, 1, 1), (2, 5, 2, 5), (2, 5, 35, 70), (1, 4, 16, 64)]


@pytest.fixture(autouse=True)
def short_blocks(monkeypatch):
    """Blocks of two times, of which less is to compile."""
    monkeypatch.setattr(lstm_times, "_TIMES", 2)


def drawn(clients, times, rows, hidden):
    generator = np.random.default_rng([clients, times, rows, hidden])
    shapes = (times, rows, 4 * hidden), (hidden, 4 * hidden), (times, rows, hidden)
    gates, kernels, weights = (generator.standard_normal((clients, *shape)) for shape in shapes)
    return gates, kernels / hidden**0.5, weights


TOLERANCES = {"float32": 2e-6, "bfloat16": 3e-2}


@pytest.mark.parametrize(
    ("shape", "dtype"),
    # by turns, and one with both
    [*zip(SHAPES, 2 * tuple(TOLERANCES), strict=True), (SHAPES[1], "float32")],
    ids=str,
)
def test_outputs_and_slopes_are_those_of_the_definition(shape, dtype):
    tolerance = TOLERANCES[dtype]
    gates, kernels, weights = (jnp.asarray(array, dtype) for array in drawn(*shape))
    advance = partial(lstm_times.advance, interpret=True)
    retreat = partial(lstm_times.retreat, interpret=True)
    outputs, cells, passed = jax.jit(jax.vmap(advance))(gates, kernels)
    found = jax.jit(jax.vmap(retreat))(weights, cells, passed, kernels)
    assert outputs.dtype == found.dtype == dtype
    generator = np.random.default_rng(0)
    for client in range(shape[0]):
        given = [np.asarray(array[client], np.float64) for array in (gates, kernels, weights)]
        expected = definition(*given[:2])
        np.testing.assert_allclose(
            np.asarray(outputs[client], np.float64), expected, atol=tolerance
        )
        gradient = np.asarray(found[client], np.float64)
        # the gradient of all times, and of each
        for time in (slice(None), *range(shape[1])):
            direction = np.zeros(gradient.shape)
            direction[time] = generator.standard_normal(direction[time].shape)
            moved = definition(given[0] + 1e-30j * direction, given[1])
            slope = (given[2] * moved).sum().imag / 1e-30
            size = np.linalg.norm(gradient) * np.linalg.norm(direction)
            assert abs((gradient * direction).sum() - slope) <= tolerance * size


def test_programs_for_cards_have_two_kernels_and_no_other_recurrence():
    gates, kernels, _ = (jnp.asarray(array, jnp.float32) for array in drawn(2, 10, 4, 32))

    @jax.jit
    @jax.vmap
    @partial(jax.grad, argnums=(0, 1))
    def gradients(gates, kernel):
        return lstm(gates, kernel, form="pallas").sum()

    text = card.lowered(gradients, gates, kernels)
    assert card.kernels(text) == 2
    # of the products, the weights' gradient alone is left
    assert text.count("stablehlo.dot_general") == 1
