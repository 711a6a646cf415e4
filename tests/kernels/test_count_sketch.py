"""Count sketches against their definition; estimates without bias, with the stated variance."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from selection_reference import sketch_reference, unsketch_reference

from fljax_kernels import count_sketch, top_k

pytestmark = pytest.mark.usefixtures("quick_compilation")

sketch = jax.jit(count_sketch.sketch, static_argnums=(2, 3))
unsketch = jax.jit(count_sketch.unsketch, static_argnums=2)

FORMS = {
    "in turn": (count_sketch._sketch_in_turn, count_sketch._unsketch_in_turn),
    "at once": (count_sketch._sketch_at_once, count_sketch._unsketch_at_once),
}


def normal(*shape):
    return jnp.asarray(np.random.default_rng(0).standard_normal(shape), jnp.float32)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("d, rows, columns", [(1, 1, 1), (50, 4, 7), (64, 3, 32), (20, 5, 30)])
def test_forms_are_the_reference(form, d, rows, columns):
    x = normal(d)
    hashes = count_sketch.draw_hashes(jax.random.key(1), d, rows, columns, x.dtype)
    numbers = [np.asarray(part) for part in hashes]
    forward, back = map(jax.jit, FORMS[form])
    table = forward(x, hashes)
    np.testing.assert_allclose(table, sketch_reference(x, *numbers), rtol=1e-5, atol=1e-5)
    expected = unsketch_reference(np.asarray(table), d, *numbers)
    np.testing.assert_allclose(back(table, hashes)[:d], expected, rtol=1e-6)


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_lossless_where_all_coordinates_have_columns(rows):
    x, key = normal(41), jax.random.key(2)
    np.testing.assert_array_equal(unsketch(sketch(x, key, rows, 41), key, 41), x)


def test_sum_of_sketches_is_the_sketch_of_the_sum():
    x, key = normal(6, 100), jax.random.key(3)
    summed = sketch(x, key, 3, 20).sum(0)
    np.testing.assert_allclose(summed, sketch(x.sum(0), key, 3, 20), rtol=1e-5, atol=1e-5)
    integers = jnp.round(8 * x)
    np.testing.assert_array_equal(
        sketch(integers, key, 3, 20).sum(0), sketch(integers.sum(0), key, 3, 20)
    )


def test_leading_axes_and_vmap_are_a_loop():
    x, key = normal(2, 3, 50), jax.random.key(4)
    tables = sketch(x, key, 3, 20)
    estimates = unsketch(tables, key, 50)
    assert tables.shape == (2, 3, 3, 20) and estimates.shape == x.shape
    mapped = jax.jit(jax.vmap(lambda x: sketch(x, key, 3, 20)))(x)
    np.testing.assert_allclose(mapped, tables, rtol=1e-6)
    for place in np.ndindex(2, 3):
        np.testing.assert_allclose(tables[place], sketch(x[place], key, 3, 20), rtol=1e-6)
        np.testing.assert_array_equal(estimates[place], unsketch(tables[place], key, 50))


def test_x64_has_the_same_hash_functions(x64):
    x, key = normal(50), jax.random.key(5)
    single = sketch(x, key, 3, 20)
    double = sketch(x.astype(jnp.float64), key, 3, 20)
    assert single.dtype == jnp.float32 and double.dtype == jnp.float64
    np.testing.assert_allclose(single, double, rtol=1e-5, atol=1e-5)
    assert unsketch(double, key, 50).dtype == jnp.float64


@pytest.mark.parametrize("values", ["normal", "constant"])
def test_estimates_have_no_bias_and_the_stated_variance(values):
    d, columns, number = 60, 16, 20_000
    x = normal(d) if values == "normal" else jnp.ones(d)
    keys = jax.random.split(jax.random.key(6), number)

    @jax.jit
    @partial(jax.vmap, in_axes=(0, None))
    def errors(key, rows):
        return unsketch(sketch(x, key, 1, columns), key, d) - x

    error = np.asarray(errors(keys, 1), np.float64)
    block = np.arange(d) // columns
    others = block[:, None] != block
    variance = others @ np.asarray(x, np.float64) ** 2 / columns
    assert (variance <= float((x**2).sum()) / columns).all()
    assert (abs(error.mean(0)) < 4 * np.sqrt(variance / number)).all()
    spread = (error**2).std(0) / np.sqrt(number)
    assert (abs((error**2).mean(0) - variance) < 4 * spread).all()


def test_signs_do_not_let_errors_of_a_block_add_up():
    d, columns, number = 64, 16, 5000
    keys = jax.random.split(jax.random.key(7), number)

    @jax.jit
    @jax.vmap
    def norm(key):
        return (sketch(jnp.ones(d), key, 1, columns) ** 2).sum()

    squares = np.asarray(norm(keys), np.float64)
    assert abs(squares.mean() - d) < 4 * squares.std() / np.sqrt(number)
    # at most twice the variance under independent hash functions, 2 d**2 / columns; with one sign
    # for all of a block it would be 24 d**2 / columns here
    assert squares.var() < 4 * d**2 / columns


def test_heavy_coordinates_are_found():
    d, key = 5000, jax.random.key(8)
    places = np.array([3, 700, 701, 4999])
    x = (0.01 * normal(d)).at[places].set(jnp.array([5.0, -7.0, 9.0, 4.0]))
    estimates = unsketch(sketch(x, key, 7, 400), key, d)
    np.testing.assert_array_equal(top_k(estimates, 4)[1], places)
    np.testing.assert_allclose(estimates[places], x[places], atol=0.3)


def test_nan_shows():
    x, key = normal(50).at[17].set(jnp.nan), jax.random.key(9)
    assert np.isnan(unsketch(sketch(x, key, 3, 20), key, 50)[17])


@pytest.mark.parametrize("rows, columns", [(0, 5), (3, 0)])
def test_empty_tables_are_refused(rows, columns):
    with pytest.raises(ValueError, match=f"{rows} x {columns}"):
        count_sketch.sketch(jnp.ones(5), jax.random.key(0), rows, columns)


def test_other_dtypes_are_refused():
    with pytest.raises(TypeError, match="int32"):
        count_sketch.sketch(jnp.arange(5), jax.random.key(0), 1, 2)
