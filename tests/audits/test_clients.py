"""Messages of clients, against loops in float64 over rows and steps."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fljax.audits.reconstruction.clients import (
    batches_in_order,
    gradient,
    local_training,
    mean_loss,
    summed,
)

pytestmark = pytest.mark.usefixtures("quick_compilation")


def losses(params, x, y):
    return (x @ params - y) ** 2


def slope(params, x, y):
    """Returns the gradient of the mean loss of rows, by hand."""
    return 2 * (x.T @ (x @ params - y)) / len(x)


@pytest.fixture
def rows():
    rng = np.random.default_rng(0)
    return rng.normal(size=3), rng.normal(size=(5, 3)), rng.integers(0, 3, 5)


def test_a_gradient_is_that_of_the_mean(rows):
    params, x, y = rows
    sent = gradient(losses)(jnp.asarray(params), jnp.asarray(x), jnp.asarray(y))
    np.testing.assert_allclose(sent, slope(params, x, y), rtol=1e-5)


def test_probable_labels_count_by_their_probability(rows):
    params, x, y = (jnp.asarray(leaf) for leaf in rows)
    sure = mean_loss(losses, params, x, jax.nn.one_hot(y, 3))
    np.testing.assert_allclose(sure, mean_loss(losses, params, x, y), rtol=1e-6)
    shares = jnp.tile(jnp.array([0.2, 0.3, 0.5]), (5, 1))
    expected = sum(
        share * mean_loss(losses, params, x, jnp.full(5, label))
        for label, share in enumerate([0.2, 0.3, 0.5])
    )
    np.testing.assert_allclose(mean_loss(losses, params, x, shares), expected, rtol=1e-6)


@pytest.mark.parametrize("seed", [None, 3])
def test_local_training_is_a_loop_over_batches(rows, seed):
    params, x, y = rows
    batches = batches_in_order(5, 2, epochs=2, seed=seed)
    client = local_training(losses, optax.sgd(0.03), batches)
    sent = client(jnp.asarray(params), jnp.asarray(x), jnp.asarray(y))
    now = params.copy()
    for batch in batches:
        taken = batch[batch >= 0]
        now -= 0.03 * slope(now, x[taken], y[taken])
    np.testing.assert_allclose(sent, now - params, rtol=1e-4, atol=1e-6)


def test_batches_hold_every_row_once_an_epoch():
    assert batches_in_order(4, 4).tolist() == [[0, 1, 2, 3]]
    drawn = batches_in_order(7, 3, epochs=3, seed=1).reshape(3, -1)
    assert all(sorted(epoch) == [-1, -1, *range(7)] for epoch in drawn.tolist())
    assert len({tuple(epoch) for epoch in drawn.tolist()}) == 3
    assert (drawn == batches_in_order(7, 3, epochs=3, seed=1).reshape(3, -1)).all()


def test_secure_aggregation_shows_the_sum(rows):
    params, x, y = rows
    client = summed(gradient(losses), 2)
    sent = client(jnp.asarray(params), jnp.asarray(x[:4]), jnp.asarray(y[:4]))
    expected = slope(params, x[:2], y[:2]) + slope(params, x[2:4], y[2:4])
    np.testing.assert_allclose(sent, expected, rtol=1e-5)
    with pytest.raises(ValueError, match="5 rows cannot be divided among 2 clients"):
        client(jnp.asarray(params), jnp.asarray(x), jnp.asarray(y))


def test_what_are_no_batches_is_refused():
    for batches in ([0, 1], [[0.5]], [[0, 1], [-1, -1]]):
        with pytest.raises(ValueError, match=r"give the rows of each step, int\[S, b\]"):
            local_training(losses, optax.sgd(0.1), batches)
    with pytest.raises(ValueError, match="batch_size = 0 must be at least 1"):
        batches_in_order(3, 0)
    with pytest.raises(ValueError, match="num_clients = 0 must be at least 1"):
        summed(gradient(losses), 0)
