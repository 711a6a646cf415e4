"""Norm bounding, adaptive zeroing and clipping against loops in NumPy, over rounds."""

import math

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
from fljax.robustness.aggregators.adaptive import adaptive_clipping, adaptive_zeroing
from fljax.robustness.aggregators.mixing import chain
from fljax.robustness.aggregators.norm_bounding import norm_bound

PLACES, SIZE = 8, 13
VALID = ~np.isin(np.arange(PLACES), [0, 4])
WEIGHTS = np.array([3.0, 1.0, 4.0, 1.0, 5.0, 9.0, 2.0, 6.0])
BOUNDED = chain(norm_bound(2.5))
ZEROING = {"initial": 0.5, "increment": 0.25}
# the estimates at first, of zeroing and of clipping
FIRST = (0.5, 1.0)
# as TensorFlow Federated's robust_aggregator, but for where they begin
ROBUST = chain(adaptive_zeroing(**ZEROING), adaptive_clipping())


def updates(seed=0):
    """Returns a stack with rows of all lengths."""
    lengths = np.array([1.0, 0.2, 0.6, 3.0, 0.1, 40.0, 0.9, 0.4])
    return np.random.default_rng(seed).standard_normal((PLACES, SIZE)) * lengths[:, None]


STACK = updates()


def robust(rows, weights, state):
    """Returns (the mean, those zeroed, the estimates that the next round has)."""
    rows, zeroed, zeroing = oracle.adaptive_zeroing(
        rows, state[0], 0.98, 2.0, ZEROING["increment"], math.log(10)
    )
    rows, clipping = oracle.adaptive_clipping(rows, state[1], 0.8, 0.2)
    return oracle.weighted_mean(rows, weights), zeroed, (zeroing, clipping)


@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize("valid", [np.ones(PLACES, bool), VALID])
def test_a_bound_is_what_the_paper_says(devices, valid):
    found = applied(BOUNDED, STACK, valid, devices=devices, weights=WEIGHTS)
    rows = STACK[valid]
    clipped = [oracle.clip(row, 2.5) for row in rows]
    expected = oracle.weighted_mean(clipped, WEIGHTS[valid])
    np.testing.assert_allclose(found.value, expected, rtol=1e-9, atol=1e-12)
    longer, there = found.reports["robustness/clipped"]
    assert longer.sum() == (np.linalg.norm(rows, axis=1) > 2.5).sum() > 0
    assert there.sum() == valid.sum()


@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize("valid", [np.ones(PLACES, bool), VALID])
def test_adaptive_bounds_follow_quantiles(devices, valid):
    state, estimates = None, FIRST
    hostile, removed = np.arange(PLACES) == 5, 0
    for seed in range(4):
        stack = updates(seed)
        found = applied(
            ROBUST, stack, valid, devices=devices, weights=WEIGHTS, state=state, attackers=hostile
        )
        told = {name: value[valid] for name, (value, _) in found.reports.items()}
        np.testing.assert_allclose(told["robustness/zeroing_norm"], 2 * estimates[0] + 0.25)
        np.testing.assert_allclose(told["robustness/clip_norm"], estimates[1])
        value, zeroed, estimates = robust(stack[valid], WEIGHTS[valid], estimates)
        np.testing.assert_allclose(found.value, value, rtol=1e-9, atol=1e-12)
        assert told["robustness/rejected"].tolist() == zeroed
        removed += sum(zeroed)
        state = jax.tree.map(jnp.asarray, found.state)
    assert 0 < removed < 4 * valid.sum() and 0 < np.sum(zeroed)


def test_they_do_not_depend_on_order_nor_on_what_is_traced():
    order = np.random.default_rng(2).permutation(PLACES)
    plain = applied(ROBUST, STACK, VALID, weights=WEIGHTS)
    permuted = applied(ROBUST, STACK[order], VALID[order], weights=WEIGHTS[order])
    np.testing.assert_allclose(permuted.value, plain.value, rtol=1e-12)
    zeroing = {"quantile": 0.98, "multiplier": 2.0, "learning_rate": math.log(10), **ZEROING}

    def rule(rate, **numbers):
        return chain(adaptive_zeroing(**numbers), adaptive_clipping(learning_rate=rate))

    traced = applied(rule, STACK, VALID, weights=WEIGHTS, traced={"rate": 0.2, **zeroing})
    np.testing.assert_allclose(traced.value, plain.value, rtol=1e-12)
    for mine, other in zip(traced.state[:2], plain.state[:2], strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-12)
    bounded = applied(lambda norm: chain(norm_bound(norm)), STACK, traced={"norm": 2.5})
    np.testing.assert_allclose(bounded.value, applied(BOUNDED, STACK).value, rtol=1e-12)


def test_extremes():
    nobody = applied(ROBUST, STACK, np.zeros(PLACES, bool))
    assert not nobody.value.any() and not any(state.any() for state in nobody.state[:2])
    zeros = applied(ROBUST, np.zeros((PLACES, SIZE)))
    assert not zeros.value.any() and zeros.reports["robustness/rejected"][0].sum() == 0
    # what equals a bound is within it
    edges = np.zeros((PLACES, SIZE))
    edges[[0, 1, 2], 0] = 1.25, 0.5, 1.0
    found, (_, zeroed, estimates) = applied(ROBUST, edges), robust(edges, WEIGHTS, FIRST)
    np.testing.assert_allclose(FIRST * np.exp(found.state[:2]), estimates, rtol=1e-12)
    assert found.reports["robustness/rejected"][0].sum() == sum(zeroed) == 0
    # estimates do not run away, whatever comes for however long
    rule, state = chain(adaptive_zeroing(quantile=0.5, learning_rate=50.0)), None
    first = applied(rule, edges).reports["robustness/zeroing_norm"][0]
    np.testing.assert_allclose(first, 2 * 10 + 1)
    for height, bound in ((0.0, -25), (0.0, -30), (1e300, -5), (1e300, 20), (1e300, 30)):
        found = applied(rule, np.full((PLACES, SIZE), height), state=state)
        np.testing.assert_allclose(found.state[0], bound, rtol=1e-9)
        state = jax.tree.map(jnp.asarray, found.state)


def test_float32_and_huge_updates():
    huge = np.where((np.arange(PLACES) == 5)[:, None], 1e30, STACK)
    for stack in (STACK, huge):
        clipped = [oracle.clip(row, 2.5) for row in stack]
        expected = {
            ROBUST: robust(stack, WEIGHTS, FIRST)[0],
            BOUNDED: oracle.weighted_mean(clipped, WEIGHTS),
        }
        for rule, value in expected.items():
            with jax.enable_x64(False):
                found = applied(rule, stack.astype(np.float32), weights=WEIGHTS).value
            np.testing.assert_allclose(found, value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("function", "arguments", "text"),
    [
        (norm_bound, {"norm": 0.0}, "norm = 0.0 must be above 0"),
        (adaptive_clipping, {"quantile": 1.1}, "quantile = 1.1 must be at least 0 and at most 1"),
        (adaptive_clipping, {"initial": -1.0}, "initial = -1.0 must be above 0"),
        (adaptive_zeroing, {"multiplier": 0.0}, "multiplier = 0.0 must be above 0"),
        (adaptive_zeroing, {"increment": -1.0}, "increment = -1.0 must be at least 0"),
        (adaptive_zeroing, {"learning_rate": 0.0}, "learning_rate = 0.0 must be above 0"),
    ],
)
def test_wrong_arguments_are_refused(function, arguments, text):
    with pytest.raises(ValueError, match=text):
        function(**arguments)


@pytest.mark.parametrize("layout", harness.LAYOUTS)
def test_rounds_remember(layout):
    def rule(rows, clients, weights, state):
        value, _, state = robust(rows, weights, state)
        return value, state

    params, estimates = by_hand.rounds(rule, FIRST)
    pipeline = Pipeline(aggregator=ROBUST)
    run = harness.rounds(algorithms.fedavg(0.2), by_hand.COHORTS, layout, pipeline=pipeline)
    toy.assert_close(run.params, params, 1e-9)
    zeroing, clipping, _ = run.states[-1].pipeline.aggregator
    np.testing.assert_allclose(FIRST * np.exp([zeroing[0], clipping[0]]), estimates, rtol=1e-9)
