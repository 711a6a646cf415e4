"""Centered clipping against loops in NumPy: one round, several rounds, where nobody is."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
from contracts import harness
from robustness import by_hand
from robustness import reference_vectors as oracle
from robustness.harness import applied

from fljax import algorithms
from fljax.core.transforms import Pipeline
from fljax.robustness.aggregators.centered_clipping import centered_clipping

RULES = {iterations: centered_clipping(2.0, iterations) for iterations in (1, 3)}
STACK = np.random.default_rng(0).standard_normal((7, 11)) * np.arange(1, 8)[:, None]
START = np.random.default_rng(1).standard_normal(11)
VALID = np.array([True, False, True, True, False, True, True])


@pytest.mark.parametrize(("iterations", "devices"), [(1, 1), (1, 2), (3, 2)])
@pytest.mark.parametrize("start", [np.zeros(11), START])
def test_it_is_what_the_paper_says(iterations, devices, start):
    rule = RULES[iterations]
    for valid in (np.ones(7, bool), VALID):
        found = applied(rule, STACK, valid, devices=devices, state=jnp.asarray(start))
        expected = oracle.centered_clipping(STACK[valid], start, 2.0, iterations)
        np.testing.assert_allclose(found.value, expected, rtol=1e-9, atol=1e-12)
        np.testing.assert_array_equal(found.state, found.value)


def test_it_does_not_depend_on_order_nor_on_whether_tau_is_traced():
    order = np.random.default_rng(2).permutation(7)
    plain = applied(RULES[3], STACK, VALID)
    permuted = applied(RULES[3], STACK[order], VALID[order])
    np.testing.assert_allclose(permuted.value, plain.value, rtol=1e-12)
    make = functools.partial(centered_clipping, iterations=3)
    traced = applied(make, STACK, VALID, traced={"tau": 2.0})
    np.testing.assert_allclose(traced.value, plain.value, rtol=1e-12)


def test_one_update_moves_the_aggregate_by_no_more_than_its_share():
    for huge in (1e30, 1e150):
        pushed = applied(RULES[1], np.vstack([STACK[:-1], np.full(11, huge)]))
        calm = applied(RULES[1], np.vstack([STACK[:-1], np.zeros(11)]))
        moved = np.linalg.norm(pushed.value - calm.value)
        np.testing.assert_allclose(moved, 2.0 / 7, rtol=1e-9)


def test_nobody_and_equal_rows():
    nobody = applied(RULES[3], STACK, np.zeros(7, bool), state=jnp.asarray(START))
    np.testing.assert_allclose(nobody.state, START)
    equal = applied(RULES[1], np.tile(START / 10, (7, 1)), state=jnp.asarray(START / 10))
    np.testing.assert_allclose(equal.value, START / 10, rtol=1e-12)
    alone = applied(RULES[1], STACK, np.arange(7) == 2)
    np.testing.assert_allclose(alone.value, oracle.clip(STACK[2], 2.0), rtol=1e-12)


def test_float32():
    for stack in (STACK, np.vstack([STACK[:-1], np.full(11, 1e30)])):
        expected = oracle.centered_clipping(stack, START, 2.0, 3)
        with jax.enable_x64(False):
            found = applied(RULES[3], stack.astype(np.float32), state=jnp.float32(START))
        np.testing.assert_allclose(found.value, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"tau": 0.0}, "tau = 0.0 must be above 0"),
        ({"tau": "2"}, "tau = '2'"),
        ({"tau": 1.0, "iterations": 0}, "iterations = 0 must be at least 1"),
    ],
)
def test_wrong_arguments_are_refused(arguments, text):
    with pytest.raises(ValueError, match=text):
        centered_clipping(**arguments)


@pytest.mark.parametrize("layout", harness.LAYOUTS)
def test_rounds_remember(layout):
    def rule(rows, clients, weights, center):
        return (oracle.centered_clipping(rows, center, 0.1, 1),) * 2

    params, center = by_hand.rounds(rule, np.zeros(by_hand.NUM_PARAMS))
    pipeline = Pipeline(aggregator=centered_clipping(0.1))
    run = harness.rounds(algorithms.fedavg(0.2), by_hand.COHORTS, layout, pipeline=pipeline)
    toy.assert_close(run.params, params, 1e-9)
    np.testing.assert_allclose(run.states[-1].pipeline.aggregator[0], center, rtol=1e-9)
