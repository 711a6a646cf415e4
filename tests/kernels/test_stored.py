"""Arrays that are written to memory are the same arrays, and so are their gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fljax_kernels.stored import stored


@pytest.mark.parametrize("dtype", ["uint8", "int32", "bfloat16", "float32"])
@pytest.mark.parametrize("first", [0, 85])
def test_every_bit_stays(dtype, first):
    x = jnp.asarray(np.random.default_rng(0).integers(0, 100, (3, 5)), dtype)
    x = x.at[0, 0].set(first)
    np.testing.assert_array_equal(jax.jit(stored)(x), x)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_rows_in_which_the_loop_runs_stand_beside_others(dtype):
    rows = np.random.default_rng(2).integers(0, 100, (4, 2, 3)).astype(dtype)
    rows[1:3, 0, 0] = 85
    np.testing.assert_array_equal(jax.jit(jax.vmap(stored))(rows), rows)


def test_gradients_pass():
    x = np.random.default_rng(1).standard_normal((4, 3)).astype(np.float32)

    def value(x, keep):
        return (keep(jnp.sin(x)) ** 2).sum()

    for derivative in (jax.grad, jax.jacfwd, lambda f, **options: jax.jacfwd(jax.grad(f))):
        got = derivative(lambda x: value(x, stored))(x)
        np.testing.assert_allclose(got, derivative(lambda x: value(x, lambda x: x))(x), rtol=1e-6)


def test_no_entries_and_scalars():
    assert stored(jnp.zeros((0, 3))).shape == (0, 3)
    assert stored(jnp.float32(2.5)) == 2.5


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="elsewhere nothing is stored")
def test_the_loop_stays_in_the_compiled_program():
    program = jax.jit(lambda x: stored(x + 1) * 2).lower(np.ones(100, np.float32)).compile()
    assert "while" in program.as_text()
