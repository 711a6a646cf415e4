"""Functions rewritten to hold every matrix transposed compute the same."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from fljax.engine.program.transposition import is_matrix, rewrite, trace

pytestmark = pytest.mark.usefixtures("quick_compilation")

_KEY = jax.random.key(3)


def _loss(w, x):
    return jax.checkpoint(lambda w: jax.nn.gelu(jax.nn.relu(x @ w)))(w).sum()


def _scan(w, x):
    return lax.scan(lambda c, t: (c * 0.9 + w.sum() * t, c.sum(0)), w, jnp.arange(3.0))


FUNCTIONS = {
    "products": lambda w, x: (x @ w, w.T @ w, (w.T @ x.T).T, jnp.einsum("ij,kj->ik", w, w)),
    "gradient": jax.grad(_loss),
    "gradients by example": lambda w, x: jax.vmap(jax.grad(_loss), (None, 0))(w, x[:, None]).sum(0),
    "sum over two of four axes": lambda w, x: (
        w + (w * jnp.arange(6.0).reshape(2, 3, 1, 1)).sum((0, 1))
    ),
    "sums": lambda w, x: (w.sum(), w.sum(0), w.sum(1), w.max(), jnp.isfinite(w).all()),
    "scalars": lambda w, x: jnp.where(x.sum() > 0, w, w * 2) + jnp.clip(w, -1, 1) * jnp.float32(2),
    "rows and columns": lambda w, x: w * w.sum(1, keepdims=True) - w.mean(0),
    "scan": _scan,
    "cond": lambda w, x: lax.cond(x.sum() > 0, lambda: w * 2, lambda: w.at[0].set(1)),
    "order": lambda w, x: (jnp.sort(w, 0), w.argmax(1), jnp.cumsum(w, 0), w[:, ::-1]),
    "random": lambda w, x: jax.random.normal(_KEY, w.shape) + w,
    "mixed types": lambda w, x: (w.astype(jnp.float32) * jnp.int8(3), (w > 0) & True, w > x.sum()),
    "precision": lambda w, x: lax.dot(
        x, w, precision=(lax.Precision.DEFAULT, lax.Precision.HIGHEST)
    ),
    "as it came": lambda w, x: (w, x, 1.0),
    "solve": lambda w, x: jnp.linalg.solve(w.T @ w + jnp.eye(w.shape[1]), w.T),
    "decomposition": lambda w, x: jnp.linalg.qr(w),
}


def _no(tree):
    return jax.tree.map(lambda _: False, tree)


@pytest.mark.parametrize("shape", [(12, 5), (6, 6)])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_all_matrices_may_be_held_transposed(name, shape):
    with jax.enable_x64(True):
        function = FUNCTIONS[name]
        w = jax.random.normal(_KEY, shape)
        x = jax.random.normal(jax.random.key(1), (shape[1], shape[0]))
        traced = trace(function, w, x)
        variables = [v for eqn in traced.jaxpr.eqns for v in (*eqn.invars, *eqn.outvars)]
        matrices = filter(is_matrix, (*variables, *traced.jaxpr.invars))
        groups = {traced.groups.of(var) for var in matrices}
        results = jax.eval_shape(function, w, x)
        rewritten = jax.jit(rewrite(traced, groups, (False, False), _no(results)))
        got, want = rewritten(w, x), jax.jit(function)(w, x)
        for leaf, other in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
            assert leaf.dtype == other.dtype
            np.testing.assert_allclose(leaf, other, rtol=1e-10, atol=1e-12)


def test_precision_follows_its_operand():
    w, x = jnp.ones((12, 5)), jnp.ones((4, 12))
    traced = trace(FUNCTIONS["precision"], w, x)
    product = {traced.groups.of(traced.jaxpr.outvars[0])}
    jaxpr = jax.make_jaxpr(rewrite(traced, product, (False, False), True))(w, x)
    (equation,) = jaxpr.eqns
    assert equation.params["precision"] == (lax.Precision.HIGHEST, lax.Precision.DEFAULT)


def test_random_bits_stay_those_of_their_context():
    w = jnp.ones((12, 5))

    def function(w):
        with jax.threefry_partitionable(False):
            return w * jax.random.uniform(_KEY, w.shape)

    rewritten = rewrite(trace(function, w), set(), (False,), False)
    np.testing.assert_array_equal(rewritten(w), function(w))


def test_scopes_are_kept():
    w, x = jnp.ones((12, 5)), jnp.ones((4, 12))

    @jax.jit
    def scoped(w, x):
        with jax.named_scope("the_model"):
            return jnp.sin(x @ w)

    rewritten = jax.jit(rewrite(trace(scoped, w, x), set(), (False, False), False))
    assert "the_model" in rewritten.lower(w, x).as_text(debug_info=True)
