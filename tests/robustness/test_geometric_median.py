"""RFA against loops in NumPy, and against the geometric median."""

import functools

import jax
import numpy as np
import pytest
import toy
from contracts import harness
from robustness import by_hand
from robustness import reference_distances as oracle
from robustness.harness import applied

from fljax import algorithms
from fljax.core.transforms import Pipeline
from fljax.robustness.aggregators.geometric_median import rfa

PLACES, SIZE = 9, 13
STACK = np.random.default_rng(0).standard_normal((PLACES, SIZE)) + 1
WEIGHTS = np.random.default_rng(1).uniform(1, 5, PLACES)
VALID = ~np.isin(np.arange(PLACES), [0, 4, 8])
HOSTILE = np.isin(np.arange(PLACES), [2, 7])
USUAL = rfa()
BY_NUMBERS = functools.partial(applied, rfa, weights=WEIGHTS)


@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize("valid", [np.ones(PLACES, bool), VALID])
def test_it_is_what_the_paper_says(devices, valid):
    for numbers in (
        {"iterations": 3.0, "smoothing": 1e-6, "tolerance": 1e-6},
        {"iterations": 1.0, "smoothing": 2.0, "tolerance": 0.0},
        {"iterations": 40.0, "smoothing": 0.5, "tolerance": 1e-3},
        {"iterations": 40.0, "smoothing": 1e-6, "tolerance": 0.1},
    ):
        found = BY_NUMBERS(STACK, valid, devices=devices, traced=numbers)
        expected = oracle.rfa(STACK[valid], WEIGHTS[valid], **numbers)
        np.testing.assert_allclose(found.value, expected, rtol=1e-9)
    usual = applied(USUAL, STACK, valid, weights=WEIGHTS, devices=devices)
    np.testing.assert_allclose(usual.value, oracle.rfa(STACK[valid], WEIGHTS[valid]), rtol=1e-9)
    assert usual.reports == {}


def test_a_tolerance_ends_iterations():
    numbers = {"smoothing": 1e-6, "tolerance": 0.05}
    few, many = (
        BY_NUMBERS(STACK, traced=numbers | {"iterations": iterations}).value
        for iterations in (1, 30)
    )
    assert np.array_equal(few, many)
    exact = BY_NUMBERS(STACK, traced=numbers | {"iterations": 30, "tolerance": 0.0}).value
    assert not np.array_equal(few, exact)
    # but not the first one
    moved = BY_NUMBERS(STACK, traced=numbers | {"iterations": 30, "tolerance": 2.0}).value
    np.testing.assert_array_equal(moved, few)
    usual = BY_NUMBERS(STACK, traced={"iterations": 30}).value
    np.testing.assert_allclose(usual, oracle.rfa(STACK, WEIGHTS, 30), rtol=1e-9)


def test_changes_are_relative_to_the_sum_after_them_whatever_their_sign():
    def check(stack, **numbers):
        found = BY_NUMBERS(stack, traced=numbers).value
        np.testing.assert_allclose(found, oracle.rfa(stack, WEIGHTS, **numbers), rtol=1e-9)

    # the second move brings the sum from 1 + share to 1
    first, second = (oracle.rfa(STACK, WEIGHTS, moves, tolerance=0.0) for moves in (1, 2))
    before, after = (WEIGHTS @ np.linalg.norm(STACK - point, axis=1) for point in (first, second))
    share = before / after - 1
    for tolerance in (share * (1 - share / 2), share * (1 + share / 2)):
        check(STACK, iterations=3, smoothing=1e-6, tolerance=tolerance)
    # near distances that count as 3.5, the sum falls, and rises by less and less
    far = np.where(np.arange(PLACES)[:, None] < 3, 5 * STACK, STACK)
    check(far, iterations=30, smoothing=3.5, tolerance=1e-5)


def test_from_zero_on_long_updates_pull_no_farther_than_others():
    from_zero = rfa(tolerance=0.0, start="zero")
    found = applied(from_zero, STACK, VALID, weights=WEIGHTS).value
    expected = oracle.rfa(STACK[VALID], WEIGHTS[VALID], tolerance=0.0, start="zero")
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    ends = [
        applied(from_zero, np.where(HOSTILE[:, None], size, STACK), weights=WEIGHTS).value
        for size in (1e6, 1e30)
    ]
    np.testing.assert_allclose(*ends, rtol=1e-3)
    assert np.abs(ends[0]).max() < 5


def test_many_iterations_find_the_geometric_median():
    found = BY_NUMBERS(
        STACK, VALID, traced={"iterations": 300, "smoothing": 1e-9, "tolerance": 0.0}
    ).value
    away = STACK[VALID] - found
    pull = WEIGHTS[VALID, None] * away / np.linalg.norm(away, axis=1, keepdims=True)
    np.testing.assert_allclose(pull.sum(0), 0, atol=1e-8)


def test_order_does_not_matter():
    order = np.random.default_rng(2).permutation(PLACES)
    plain = applied(USUAL, STACK, VALID, weights=WEIGHTS).value
    permuted = applied(USUAL, STACK[order], VALID[order], weights=WEIGHTS[order]).value
    np.testing.assert_allclose(permuted, plain, rtol=1e-12)


def test_extremes():
    equal = applied(USUAL, np.tile(STACK[0], (PLACES, 1)), VALID, weights=WEIGHTS)
    np.testing.assert_allclose(equal.value, STACK[0], rtol=1e-12)
    assert not applied(USUAL, np.zeros((PLACES, SIZE))).value.any()
    assert not applied(USUAL, STACK, np.zeros(PLACES, bool)).value.any()
    alone = applied(USUAL, STACK, np.arange(PLACES) == 3)
    np.testing.assert_allclose(alone.value, STACK[3], rtol=1e-12)
    two = applied(USUAL, STACK, np.arange(PLACES) < 2)
    np.testing.assert_allclose(two.value, STACK[:2].mean(0), rtol=1e-9)
    # one in the middle of all counts by the least distance
    around = np.vstack([STACK[1:].mean(0), STACK[1:]])
    middle = applied(USUAL, around).value
    np.testing.assert_allclose(middle, oracle.rfa(around, np.ones(PLACES)), rtol=1e-9)


def test_float32_and_huge_updates():
    usual = STACK.astype(np.float32)
    numbers = {"iterations": 80, "smoothing": 1e-6, "tolerance": 0.0}
    with jax.enable_x64(False):
        found = applied(USUAL, usual, weights=WEIGHTS).value
        for size in (1e6, 1e30, 1e37):
            huge = np.where(HOSTILE[:, None], np.float32(size), usual)
            end = applied(rfa, huge, traced=numbers).value
            # hostile clients pull by their number, and not by how far they are
            assert np.abs(end).max() < 10
            assert np.isfinite(applied(USUAL, huge).value).all()
    np.testing.assert_allclose(found, oracle.rfa(STACK, WEIGHTS), rtol=1e-5)


def test_iterations_take_back_a_share_of_what_is_pulled():
    # here of so large numbers that their distances are no floats, as the docstring counts
    stack = np.zeros((16, SIZE), np.float32)
    stack[:3] = 3e38
    with jax.enable_x64(False):
        for iterations, part in ((3, 350), (8, 540_000)):
            end = applied(rfa, stack, traced={"iterations": iterations, "tolerance": 0.0}).value
            np.testing.assert_allclose(end, 3e38 / part, rtol=0.02)
            expected = oracle.rfa(stack.astype(float), np.ones(16), iterations, tolerance=0.0)
            np.testing.assert_allclose(end, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"start": "median"}, "start = 'median'"),
        ({"iterations": 0}, "iterations = 0 must be at least 1"),
        ({"iterations": 2.5}, "iterations = 2.5 .* whole number"),
        ({"smoothing": 0}, "smoothing = 0.* must be above 0"),
        ({"tolerance": -1e-3}, "tolerance = -0.001 must be at least 0"),
    ],
)
def test_wrong_numbers_are_refused(arguments, text):
    with pytest.raises(ValueError, match=text):
        rfa(**arguments)


@pytest.mark.parametrize("layout", harness.LAYOUTS)
def test_rounds_weigh_clients_by_their_rows(layout):
    params, _ = by_hand.rounds(
        lambda rows, clients, weights, state: (oracle.rfa(rows, weights), state), ()
    )
    pipeline = Pipeline(aggregator=rfa())
    run = harness.rounds(algorithms.fedavg(0.2), by_hand.COHORTS, layout, pipeline=pipeline)
    toy.assert_close(run.params, params, 1e-9)
