"""Median, trimmed mean and robust learning rate against loops in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from robustness import reference_coordinates as oracle
from robustness.harness import applied

from fljax.core.transforms import Cohort
from fljax.robustness import networks
from fljax.robustness.aggregators.coordinates import median, trimmed_mean
from fljax.robustness.aggregators.robust_learning_rate import robust_learning_rate

WEIGHTS = np.array([3.0, 1.0, 20.0, 7.0, 1.0, 2.0, 5.0])
RULES = {
    "median": (median(), lambda rows, weights: oracle.median(rows)),
    "share": (trimmed_mean(0.29), lambda rows, weights: oracle.trimmed_mean(rows, share="0.29")),
    "f": (trimmed_mean(f=2), lambda rows, weights: oracle.trimmed_mean(rows, f=2)),
    "signs": (
        robust_learning_rate(3),
        lambda rows, weights: oracle.robust_learning_rate(rows, weights, 3),
    ),
}
EVERY_RULE = pytest.mark.parametrize("name", RULES)


def stack(size, columns=13, seed=0):
    """Returns updates with ties, zeros, and numbers of very different sizes."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((size, columns)) * 10.0 ** rng.integers(-3, 4, (size, columns))
    rows[:, 0] = 1.5
    rows[:, 1] = rng.integers(-1, 2, size)
    return rows


def agrees(name, rows, valid, weights=None, **options):
    """Compares a rule with its definition on the rows that are there."""
    rule, expected = RULES[name]
    weights = np.ones(len(rows)) if weights is None else weights
    found = applied(rule, rows, valid, weights=weights, **options).value
    expected = expected(rows[valid], weights[valid])
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)
    return found


@EVERY_RULE
@pytest.mark.parametrize("size", [7, 6])
def test_it_is_what_the_paper_says_whoever_is_there(name, size):
    rows = stack(size)
    for number in range(1, 2**size):
        valid = (number >> np.arange(size)) % 2 == 1
        if number % 9 == 1 or valid.sum() in (1, 2, size - 1, size):
            agrees(name, rows, valid, WEIGHTS[:size])


@EVERY_RULE
def test_one_client_and_two(name):
    for size in (1, 2):
        agrees(name, stack(size), np.ones(size, bool))


@EVERY_RULE
def test_it_does_not_depend_on_order_nor_on_devices(name):
    rows, valid = stack(7), np.array([True, False, True, True, True, False, True])
    order = np.random.default_rng(3).permutation(7)
    plain = agrees(name, rows, valid, WEIGHTS)
    permuted = agrees(name, rows[order], valid[order], WEIGHTS[order])
    np.testing.assert_allclose(permuted, plain, rtol=1e-12)
    np.testing.assert_allclose(agrees(name, rows, valid, WEIGHTS, devices=2), plain, rtol=1e-12)


@EVERY_RULE
def test_nobody_makes_nothing(name):
    assert not applied(RULES[name][0], stack(7), np.zeros(7, bool)).value.any()


@pytest.mark.parametrize("name", ["median", "share", "f"])
def test_what_few_attackers_send_does_not_matter_and_nothing_overflows(name):
    with jax.enable_x64(False):
        calm = np.float32(stack(7))
        for huge in (1e30, 3e38):
            for sign in (1, -1):
                rows = calm.copy()
                rows[2] = sign * np.float32(huge)
                found = applied(RULES[name][0], rows).value
                assert (found >= np.delete(calm, 2, 0).min(0)).all()
                assert (found <= np.delete(calm, 2, 0).max(0)).all()
        # all are as large as numbers are, of either sign
        top = np.full((7, 13), np.finfo(np.float32).max)
        top[:, 1] *= -1
        top[::2, 2] *= -1
        found = applied(RULES[name][0], top, np.arange(7) < 6).value
        np.testing.assert_allclose(found, np.where(np.arange(13) == 2, 0, top[1]), rtol=1e-6)


@EVERY_RULE
def test_float32(name):
    rule, expected = RULES[name]
    rows = np.float32(stack(7))
    with jax.enable_x64(False):
        found = applied(rule, rows, weights=WEIGHTS)
    assert found.value.dtype == np.float32
    scale = np.abs(rows).max(0)
    assert (np.abs(found.value - expected(rows, WEIGHTS)) <= 1e-5 * scale).all()


@EVERY_RULE
def test_columns_are_taken_in_turn(name, monkeypatch):
    monkeypatch.setattr(networks, "_BLOCK", 64)
    rule, expected = RULES[name]
    rows = stack(7, columns=300)
    found = applied(rule, rows, weights=WEIGHTS).value
    np.testing.assert_allclose(found, expected(rows, WEIGHTS), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("make", "numbers"),
    [
        (trimmed_mean, {"share": 0.29}),
        (trimmed_mean, {"f": 2}),
        (robust_learning_rate, {"threshold": 3}),
    ],
)
def test_traced_numbers_are_pythons(make, numbers):
    rows, rule = stack(7), make(**numbers)
    for valid in (np.ones(7, bool), np.arange(7) != 3, np.arange(7) < 2):
        traced = applied(make, rows, valid, traced=numbers).value
        np.testing.assert_array_equal(traced, applied(rule, rows, valid).value)


def test_trials_side_by_side_have_rows_and_numbers_of_their_own():
    rows = np.stack([stack(7, seed=seed) for seed in range(3)])
    valid = np.array([[1] * 7, [1, 0, 1, 1, 1, 0, 1], [0, 0, 1, 0, 1, 1, 1]], bool)
    ends = np.array([0, 1, 2])

    def one_trial(rows, valid, ends):
        cohort = Cohort(valid * 1.0, valid, jnp.arange(7), jnp.int32(0), "devices")
        rows = jnp.where(valid[:, None], rows, 0)
        return trimmed_mean(f=ends).apply(rows, cohort, ())[0]

    found = jax.jit(jax.vmap(one_trial))(rows, valid, ends)
    for trial in range(3):
        expected = oracle.trimmed_mean(rows[trial][valid[trial]], f=ends[trial])
        np.testing.assert_allclose(found[trial], expected, rtol=1e-9, atol=1e-12)


@settings(max_examples=40)
@example(count=100, hundredths=29)
@given(count=st.integers(1, 100), hundredths=st.integers(0, 49))
def test_a_share_of_hundredths_is_rounded_down_as_written(count, hundredths):
    ends = hundredths * count // 100
    # the mean of squares tells how many are left out at either end
    squares = np.zeros((100, 1))
    squares[:count, 0] = np.arange(count) ** 2
    share = {"share": hundredths / 100}  # 0.29 * 100 is below 29
    found = applied(trimmed_mean, squares, np.arange(100) < count, traced=share).value
    np.testing.assert_allclose(found, squares[ends : count - ends].mean(0), rtol=1e-9)


def test_what_rules_promise_nothing_for():
    few = RULES["median"][0].problem
    assert few(3) is None and few(2) == "median needs at least 3 updates, and there may be 2"
    assert RULES["f"][0].problem(5) is None
    assert RULES["f"][0].problem(4) == (
        "trimmed_mean(f=2) needs at least 2 f + 1 = 5 updates, and there may be 4"
    )
    assert trimmed_mean(0.1).problem(10) is None and trimmed_mean(0).problem(1) is None
    assert "of fewer than 10 updates, and there may be 9" in trimmed_mean(0.1).problem(9)
    assert robust_learning_rate(4).problem(4) is None
    assert "no fewer than 4 updates, and there may be 3" in robust_learning_rate(4).problem(3)


def test_who_counts_clients_by_weights():
    assert [rule.weighs for rule, _ in RULES.values()] == [False, False, False, True]


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: trimmed_mean(), "either a share of the updates at either end, or their number"),
        (lambda: trimmed_mean(0.1, f=2), "either a share"),
        (lambda: trimmed_mean(0.5), "share = 0.5 must be at least 0 and below 0.5"),
        (lambda: trimmed_mean(-0.1), "share = -0.1"),
        (lambda: trimmed_mean("0.1"), "share = '0.1'"),
        (lambda: trimmed_mean(f=-1), "f = -1 must be at least 0"),
        (lambda: trimmed_mean(f=1.5), "f = 1.5"),
        (lambda: robust_learning_rate(-1), "threshold = -1"),
    ],
)
def test_wrong_arguments_are_refused(make, text):
    with pytest.raises(ValueError, match=text):
        make()
