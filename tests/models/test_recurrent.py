"""The LSTM's own gradient against differences of a NumPy loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from fljax.models.recurrent import LSTM

pytestmark = pytest.mark.usefixtures("quick_compilation")


def lstm(x, input_kernel, hidden_kernel, bias):
    """[T, B, inputs] -> [T, B, hidden], one time after another."""

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    output = cell = np.zeros((x.shape[1], hidden_kernel.shape[0]))
    outputs = []
    for at in x:
        gates = at @ input_kernel + output @ hidden_kernel + bias
        write, new, forget, read = np.split(gates, 4, axis=-1)
        cell = sigmoid(forget + 1) * cell + sigmoid(write) * np.tanh(new)
        output = sigmoid(read) * np.tanh(cell)
        outputs.append(output)
    return np.stack(outputs)


@pytest.mark.parametrize("argument", range(4))
def test_gradients_are_slopes_of_the_definition(argument, x64):
    generator = np.random.default_rng(0)
    shapes = [(5, 2, 3), (3, 16), (4, 16), (16,)]
    arguments = [generator.standard_normal(shape) for shape in shapes]
    weights = generator.standard_normal((5, 2, 4))
    direction = generator.standard_normal(shapes[argument])

    def ours(value):
        x, input_kernel, hidden_kernel, bias = [
            value if i == argument else jnp.asarray(other) for i, other in enumerate(arguments)
        ]
        module = LSTM(3, 4, nnx.Rngs(0))
        module.input_kernel[...], module.hidden_kernel[...] = input_kernel, hidden_kernel
        module.bias[...] = bias
        return (weights * module(x)).sum()

    def definition(step):
        moved = list(arguments)
        moved[argument] = moved[argument] + step * direction
        return (weights * lstm(*moved)).sum()

    value, gradient = jax.value_and_grad(ours)(arguments[argument])
    np.testing.assert_allclose(value, definition(0), rtol=1e-12)
    slope = (definition(1e-5) - definition(-1e-5)) / 2e-5
    np.testing.assert_allclose((gradient * direction).sum(), slope, rtol=1e-8)
