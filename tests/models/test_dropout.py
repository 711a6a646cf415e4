"""Dropout: the share that is kept, its mean, and draws that depend on the key alone."""

import jax
import numpy as np
import pytest
from flax import nnx

from fljax import tasks
from fljax.models.dropout import Dropout

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.mark.parametrize("rate", [0.1, 0.25, 0.5])
def test_kept_entries_are_scaled_and_the_others_are_zero(rate):
    layer = Dropout(rate, rngs=nnx.Rngs(3))
    x = np.random.default_rng(0).uniform(1, 2, (100, 20, 50)).astype(np.float32)
    y = np.asarray(layer(x))
    kept = y != 0
    np.testing.assert_allclose(y[kept], x[kept] / (1 - rate), rtol=1e-6)
    # five standard deviations of a share, of all and of each row and column
    for axes, size in ((None, x.size), ((1, 2), 1000), ((0, 1), 2000)):
        shares = kept.mean(axes)
        assert np.abs(shares - (1 - rate)).max() < 5 * np.sqrt(rate * (1 - rate) / size)


def test_calls_draw_differently_and_evaluation_drops_nothing():
    layer = Dropout(0.5, rngs=nnx.Rngs(0))
    x = np.ones((8, 64), np.float32)
    first, second = np.asarray(layer(x)), np.asarray(layer(x))
    assert 0.3 < np.mean(first == second) < 0.7
    layer.eval()
    np.testing.assert_array_equal(layer(x), x)
    layer.train()
    assert (np.asarray(layer(x)) == 0).any()


def test_draws_depend_on_the_key_alone():
    task = tasks.classification(
        lambda rngs: nnx.Sequential(nnx.Linear(4, 3, rngs=rngs), Dropout(0.5, rngs=rngs)), 3
    )
    params, frozen, state = task.init(jax.random.key(0))
    rng = np.random.default_rng(0)
    batch = {
        "x": rng.standard_normal((64, 4)).astype(np.float32),
        "y": rng.integers(0, 3, 64).astype(np.int32),
        "mask": np.ones(64, bool),
    }

    def losses(key):
        return task.loss(params, frozen, state, batch, key, True)[0][0]

    keys = jax.random.split(jax.random.key(1), 3)
    together = jax.jit(jax.vmap(losses))(keys)
    alone = np.stack([losses(key) for key in keys])
    np.testing.assert_allclose(together, alone, rtol=1e-5, atol=1e-6)
    assert (alone[0] != alone[1]).any()


def test_gradient_goes_through_what_was_kept():
    x = np.random.default_rng(2).standard_normal(200).astype(np.float32)
    gradient = jax.grad(lambda x: Dropout(0.25, rngs=nnx.Rngs(1))(x).sum())(x)
    kept = np.asarray(Dropout(0.25, rngs=nnx.Rngs(1))(x)) != 0
    np.testing.assert_allclose(gradient, kept / 0.75, rtol=1e-6)
