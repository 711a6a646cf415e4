"""Gated recurrent units against a NumPy loop; padding changes no state."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from fljax import models
from fljax.models.gru import GRU

pytestmark = pytest.mark.usefixtures("quick_compilation")


def test_states_are_those_of_the_definition(x64):
    rng = np.random.default_rng(0)
    layer, x = GRU(3, 4, nnx.Rngs(0)), rng.standard_normal((5, 2, 3))
    values = {
        "input_kernel": rng.standard_normal((3, 12)),
        "hidden_kernel": rng.standard_normal((4, 12)),
        "bias": rng.standard_normal(12),
        "hidden_bias": rng.standard_normal(4),
    }
    for name, value in values.items():
        setattr(layer, name, nnx.Param(jnp.asarray(value)))

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    state, wanted = np.zeros((2, 4)), []
    w_r, w_z, w_n = np.split(values["input_kernel"], 3, -1)
    u_r, u_z, u_n = np.split(values["hidden_kernel"], 3, -1)
    b_r, b_z, b_n = np.split(values["bias"], 3)
    for at in x:
        reset = sigmoid(at @ w_r + b_r + state @ u_r)
        update = sigmoid(at @ w_z + b_z + state @ u_z)
        new = np.tanh(at @ w_n + b_n + reset * (state @ u_n + values["hidden_bias"]))
        state = (1 - update) * new + update * state
        wanted.append(state)
    np.testing.assert_allclose(layer(jnp.asarray(x)), wanted, rtol=1e-12)


def test_padding_changes_no_state():
    model = models.gru_classifier(3, (6,), vocab=5, hidden=4)(nnx.Rngs(0))
    short, longer = jnp.array([[1, 2, 3, 0, 0, 0]]), jnp.array([[1, 2, 3]])
    np.testing.assert_array_equal(model(short), model(longer))


def test_tokens_need_a_vocabulary():
    with pytest.raises(ValueError, match="give vocab for tokens"):
        models.gru_classifier(3, (6,))
