"""Sums of bfloat16 numbers are those of float32, wherever they are in a function."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from fljax.core.wide_sums import with_wide_sums

pytestmark = pytest.mark.usefixtures("quick_compilation")

ROWS = 3000
# positive numbers: what is added soon is too small to be seen beside the sum
X = jnp.asarray(np.random.default_rng(0).random((ROWS, 4)), jnp.bfloat16)
TOTAL = np.asarray(X, np.float64).sum(0)


def column_sums(x):
    """The gradient of a bias: unlike jnp.sum, in x's own dtype."""
    added = jax.linear_transpose(lambda b: jnp.broadcast_to(b, x.shape), x[0])
    return added(x)[0]


def looked_up(x):
    """The gradient of a table, of which every row but one is looked up by every fourth row."""
    index = jnp.arange(ROWS) % 4
    return jax.linear_transpose(lambda table: table[index], jnp.zeros((5, 4), x.dtype))(x)[0]


def pooled(x):
    window = lax.reduce_window(x, 0.0, lax.add, (ROWS, 1), (1, 1), "VALID")
    return window[0]


def in_a_loop(x):
    return lax.scan(lambda total, _: (total, column_sums(x)), x[0], None, length=2)[1][1]


def in_a_while_loop(x):
    def body(carry):
        step, _ = carry
        return step + 1, column_sums(x)

    return lax.while_loop(lambda carry: carry[0] < 2, body, (0, x[0]))[1]


def in_a_branch(x):
    return lax.cond(x[0, 0] < 2, column_sums, lambda x: x[0], x)


def recomputed(x):
    return jax.checkpoint(column_sums)(x)


@pytest.mark.parametrize(
    "function",
    [column_sums, pooled, in_a_loop, in_a_while_loop, in_a_branch, recomputed],
)
@pytest.mark.parametrize("over_lanes", [False, True])
def test_sums_are_rounded_once(function, over_lanes):
    found = with_wide_sums(function)
    if over_lanes:
        found = jax.vmap(found)(jnp.stack([X, 2 * X]))[0]
    else:
        found = jax.jit(found)(X)
    assert found.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(found, np.float64), TOTAL, rtol=2**-8)


def test_tables_and_running_sums():
    exact = np.asarray(X, np.float64)
    found = np.asarray(jax.jit(with_wide_sums(looked_up))(X), np.float64)
    expected = [exact[row::4].sum(0) for row in range(4)]
    np.testing.assert_allclose(found[:4], expected, rtol=2**-8)
    assert not found[4].any()
    running = np.asarray(with_wide_sums(lax.cumsum)(X), np.float64)
    np.testing.assert_allclose(running, exact.cumsum(0), rtol=2**-8)


def test_all_else_stays_and_structures_come_back():
    def function(tree, key):
        noise = jax.random.normal(key, (3,))
        return {"sum": tree["x"].sum(), "noise": noise}, (tree["n"] + 1, None)

    arguments = {"x": jnp.arange(4.0), "n": 2}, jax.random.key(0)
    found, expected = with_wide_sums(function)(*arguments), function(*arguments)
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, found, expected)
