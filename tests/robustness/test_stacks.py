"""Numbers of stacks over one device and several: norms, medians, random columns."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from robustness.harness import applied

from fljax.core.transforms import Aggregator
from fljax.robustness.stacks import (
    clip_factors,
    directions,
    mean_of,
    median_of,
    norms,
    over,
    random_columns,
    square_distances,
    whole,
)
from fljax_kernels import random_k

STACK = np.random.default_rng(0).standard_normal((5, 7))
ORIGIN = np.random.default_rng(1).standard_normal(7)


def told(function):
    """Returns a rule that reports what a function makes of a stack, under "it"."""

    def apply(stack, cohort, state):
        return stack.sum(0), state, {"it": (function(stack, cohort), cohort.valid)}

    return Aggregator("stack", apply, reports=("it",))


LENGTHS = told(norms)
SAMPLED = told(lambda stack, cohort: jax.lax.psum(
    (random_columns(cohort.key, stack, 4, cohort) ** 3).sum(1), cohort.axis_name
))  # fmt: skip


@pytest.mark.parametrize("devices", [1, 2])
def test_norms_of_any_length(devices):
    stack = STACK * np.array([1.0, 1e-12, 1e160, 0.0, 1e3])[:, None]
    found = applied(LENGTHS, stack, devices=devices).reports["it"][0]
    exact = [
        np.linalg.norm(row / scale) * scale for row in stack for scale in [abs(row).max() or 1]
    ]
    np.testing.assert_allclose(found, exact, rtol=1e-12)
    with jax.enable_x64(False):
        stack = np.float32(STACK * np.array([1.0, 1e-12, 1e30, 0.0, 1e3])[:, None])
        found = applied(LENGTHS, stack, devices=devices).reports["it"][0]
    np.testing.assert_allclose(found, np.linalg.norm(stack.astype(float), axis=1), rtol=1e-6)


UNITS = told(lambda stack, cohort: whole(directions(stack, cohort), cohort, 7))
DISTANCES = told(square_distances)
MEANS = told(lambda stack, cohort: jnp.broadcast_to(mean_of(stack, cohort.valid), stack.shape))


@pytest.mark.parametrize("devices", [1, 2])
def test_directions_of_any_numbers(devices):
    largest = 3e38 / abs(STACK).max()
    stack = np.float32(STACK * np.array([1.0, 1e-35, largest, 0.0, 1e19])[:, None])
    exact = STACK / np.linalg.norm(STACK, axis=1, keepdims=True) * (np.arange(5) != 3)[:, None]
    with jax.enable_x64(False):
        found = applied(UNITS, stack, devices=devices).reports["it"][0]
    np.testing.assert_allclose(found, exact, rtol=1e-5, atol=1e-7)


def test_quotients_of_any_numbers():
    with jax.enable_x64(False):
        divided = jax.jit(lambda values: over(values, jnp.abs(values).max()))
        for size in (3e38, 1e38, 1.0, 1e-37):
            found = divided(jnp.asarray([size, -size / 4, 0], jnp.float32))
            np.testing.assert_allclose(found, [1, -0.25, 0], rtol=1e-6)
        assert divided(jnp.zeros(2)).tolist() == [0, 0]


def test_means_of_huge_rows_are_finite():
    with jax.enable_x64(False):
        found = applied(MEANS, np.full((5, 7), 3e38, np.float32)).reports["it"][0]
    np.testing.assert_allclose(found, 3e38, rtol=1e-6)


@pytest.mark.parametrize("devices", [1, 2])
def test_rows_that_are_not_finite_are_far_from_all(devices):
    valid = np.array([True, True, True, False, True])
    near = np.array([False, True, True, False, True])
    exact = ((STACK[:, None] - STACK[None]) ** 2).sum(-1)
    for entry in (np.inf, np.nan, -1.7e308):
        stack = STACK.copy()
        stack[0, 2:] = entry
        found = applied(DISTANCES, stack, valid, devices=devices).reports["it"][0]
        np.testing.assert_allclose(found[np.ix_(near, near)], exact[np.ix_(near, near)], atol=1e-12)
        assert np.isposinf(found[0]).all() and np.isposinf(found[1:, 0]).all()


def test_norms_from_an_origin():
    own = functools.partial(jax.vmap, axis_name="one")
    cohort = type("One", (), {"axis_name": "one"})
    found = own(lambda stack: norms(stack, cohort, jnp.asarray(ORIGIN)))(jnp.asarray(STACK)[None])
    np.testing.assert_allclose(found[0], np.linalg.norm(STACK - ORIGIN, axis=1), rtol=1e-12)


@pytest.mark.parametrize("devices", [1, 2, 4])
def test_random_columns_do_not_depend_on_devices(devices):
    key = jax.random.key(5)
    found = applied(SAMPLED, STACK, devices=devices, key=key).reports["it"][0]
    chosen = np.asarray(random_k(key, 7, 4))
    np.testing.assert_allclose(found, (STACK[:, chosen] ** 3).sum(1), rtol=1e-12)


@given(
    values=st.lists(st.floats(0, 1e300), min_size=6, max_size=6),
    rows=st.lists(st.booleans(), min_size=6, max_size=6),
)
@settings(max_examples=30)
def test_medians(values, rows):
    found = jax.jit(median_of)(jnp.asarray(values), jnp.asarray(rows))
    chosen = np.array(values)[np.array(rows)]
    np.testing.assert_allclose(found, np.median(chosen) if len(chosen) else np.inf, rtol=1e-12)


def test_factors_of_clipping():
    lengths = jnp.array([0.0, 1.0, 2.0, 8.0, jnp.inf])
    assert clip_factors(lengths, 2.0).tolist() == [1, 1, 1, 0.25, 0]
    assert clip_factors(lengths, 0.0).tolist() == [0, 0, 0, 0, 0]
