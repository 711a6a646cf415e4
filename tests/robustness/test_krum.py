"""Krum, Multi-Krum and Bulyan against loops in NumPy."""

import functools

import hypothesis
import hypothesis.strategies as st
import jax
import numpy as np
import pytest
from robustness import reference_distances as oracle
from robustness.harness import applied

from fljax.robustness.aggregators.bulyan import _mean_near_median, bulyan
from fljax.robustness.aggregators.krum import krum, multi_krum
from fljax.robustness.reports import REJECTIONS

PLACES, SIZE = 18, 21
RULES = {
    "krum": (krum, oracle.krum),
    "multi_krum": (multi_krum, oracle.multi_krum),
    "bulyan": (bulyan, oracle.bulyan),
}
VALID = ~np.isin(np.arange(PLACES), [0, 6, 11])
HOSTILE = np.isin(np.arange(PLACES), [2, 7])


@pytest.fixture
def quick_compilation():
    """Keeps XLA's emitters of fused loops, without which networks of many rows compile for ages."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


def updates(seed=0):
    """Returns a stack of which two rows are elsewhere, all far from zero."""
    rng = np.random.default_rng(seed)
    stack = rng.standard_normal((PLACES, SIZE)) * rng.uniform(0.5, 2, (PLACES, 1)) + 3
    stack[HOSTILE] = stack[HOSTILE] * -4 + rng.standard_normal(SIZE)
    return stack


def rejected(found):
    return set(np.flatnonzero(found.reports["robustness/rejected"][0]).tolist())


def check(name, stack, valid, f, devices=1):
    rule, expected = RULES[name]
    found = applied(rule, stack, valid, devices=devices, traced={"f": float(f)}, attackers=HOSTILE)
    there = np.flatnonzero(valid)
    value, chosen = expected(stack[valid], f)
    np.testing.assert_allclose(found.value, value, rtol=1e-9)
    kept = set(there[list(chosen)].tolist())
    assert rejected(found) == set(there.tolist()) - kept
    wrong, hostile = (found.reports["robustness/false_negatives"][i].sum() for i in (0, 1))
    assert (wrong, hostile) == (
        len(kept & set(np.flatnonzero(HOSTILE).tolist())), (HOSTILE & valid).sum(),
    )  # fmt: skip


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("devices", [1, 2])
def test_rules_are_what_their_papers_say(name, devices):
    # numbers for which the papers promise something, and less
    for seed, f in enumerate((0, 1, 2, 3, 6)):
        check(name, updates(seed), np.ones(PLACES, bool), f, devices)
        check(name, updates(seed), VALID, f, devices)


@pytest.mark.parametrize("name", RULES)
@hypothesis.given(seed=st.integers(0, 10**6), count=st.integers(1, PLACES), f=st.integers(0, 5))
@hypothesis.settings(max_examples=25)
def test_any_number_of_updates_anywhere(name, seed, count, f):
    valid = np.random.default_rng(seed).permutation(PLACES) < count
    check(name, updates(seed), valid, f)


@pytest.mark.parametrize("name", RULES)
def test_order_and_kinds_of_numbers_do_not_matter(name):
    rule, _ = RULES[name]
    order = np.random.default_rng(2).permutation(PLACES)
    plain = applied(rule(3), updates(), VALID)
    permuted = applied(rule, updates()[order], VALID[order], traced={"f": 3.0})
    np.testing.assert_allclose(permuted.value, plain.value, rtol=1e-12)
    assert {order[place] for place in rejected(permuted)} == rejected(plain)
    assert plain.reports["robustness/false_positives"][1].sum() == 0  # nobody knows of attackers


@pytest.mark.parametrize("name", RULES)
def test_equal_updates_and_none(name):
    rule, _ = RULES[name]
    make = functools.partial(applied, rule, traced={"f": 2.0})
    equal = make(np.tile(updates()[3], (PLACES, 1)), VALID)
    np.testing.assert_allclose(equal.value, updates()[3], rtol=1e-12)
    first = {"krum": 1, "multi_krum": 13, "bulyan": 11}[name]  # ties: those that come first
    assert rejected(equal) == set(np.flatnonzero(VALID)[first:].tolist())
    assert not make(np.zeros((PLACES, SIZE))).value.any()
    nobody = make(updates(), np.zeros(PLACES, bool))
    assert not nobody.value.any() and not rejected(nobody)


@pytest.mark.parametrize("name", RULES)
def test_float32_and_huge_updates(name):
    rule, expected = RULES[name]
    make = functools.partial(applied, rule, traced={"f": 3.0}, attackers=HOSTILE)
    usual = updates().astype(np.float32)
    value, chosen = expected(usual.astype(float), 3)
    with jax.enable_x64(False):
        np.testing.assert_allclose(make(usual).value, value, rtol=1e-5)
        # hostile updates of any size cost the distances of the others no digits
        for size in (1e4, 1e10, 1e30, 3e38):
            huge = np.where(HOSTILE[:, None], np.sign(usual) * np.float32(size), usual)
            found = make(huge)
            assert rejected(found) == set(range(PLACES)) - chosen
            np.testing.assert_allclose(found.value, value, rtol=1e-5)
        # two whose squared distance is no float: still one of them, not a place where nobody is
        apart = np.sign(usual) * np.float32(1e30)
        apart[2] = -apart[7]
        np.testing.assert_array_equal(make(apart, HOSTILE).value, apart[2])


@pytest.mark.parametrize("name", RULES)
def test_rows_that_are_not_finite_are_never_chosen(name):
    rule, expected = RULES[name]
    stack = updates()
    value, chosen = expected(np.where(HOSTILE[:, None], 1e150, stack), 3)
    for entry in (np.inf, np.nan):
        broken = np.where(HOSTILE[:, None], entry, stack)
        found = applied(rule, broken, traced={"f": 3.0}, attackers=HOSTILE)
        np.testing.assert_allclose(found.value, value, rtol=1e-9)
        assert rejected(found) == set(range(PLACES)) - chosen
        if name != "bulyan":  # which takes n - 2 f, whoever they are
            two = np.isin(np.arange(PLACES), [2, 9])
            found = applied(rule, broken, two, traced={"f": 3.0}, attackers=HOSTILE)
            np.testing.assert_allclose(found.value, stack[9], rtol=1e-12)


def test_so_many_are_averaged():
    stack = updates()
    for m in (1, 3, 9, 20):
        found = applied(multi_krum, stack, VALID, traced={"f": 2.0, "m": float(m)})
        value, _ = oracle.multi_krum(stack[VALID], 2, m)
        np.testing.assert_allclose(found.value, value, rtol=1e-9)
        if m == 3:
            np.testing.assert_array_equal(
                applied(multi_krum(2, 3), stack, VALID).value, found.value
            )


def test_values_that_are_as_near_to_a_median():
    rng = np.random.default_rng(0)
    columns = rng.integers(0, 5, (9, 200)).astype(float)
    there = rng.permutation(9) < 7
    infinite = np.where(there[:, None], columns, np.inf)
    means = jax.jit(_mean_near_median)
    for nearest in range(1, 8):
        found = means(infinite, np.int32(7), np.int32(nearest))
        expected = [oracle.mean_near_median(column, nearest) for column in columns[there].T]
        np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_too_few_updates():
    assert krum(5).problem(13) is None
    assert krum(5).problem(12) == "krum needs at least 2 f + 3 = 13 updates, and there may be 12"
    assert multi_krum(0).problem(2).startswith("multi_krum needs at least 2 f + 3 = 3 updates")
    for m, n in ((7, 8), (None, 5), (100, 101)):
        assert multi_krum(1, m).problem(n) is None
    assert "m = 100 are more than 9" in multi_krum(1, 100).problem(10)
    assert multi_krum(1, 100).problem(4).startswith("multi_krum needs at least 2 f + 3 = 5")
    assert multi_krum(1, jax.numpy.float32(9)).problem(5) is None
    assert multi_krum(jax.numpy.float32(1), 9).problem(5) is None
    assert bulyan(2).problem(11) is None and "4 f + 3 = 11" in bulyan(2).problem(10)
    for rule in (krum(1), multi_krum(1), bulyan(1)):
        assert not rule.weighs and rule.reports == REJECTIONS


@pytest.mark.parametrize("rule", [krum, multi_krum, bulyan])
@pytest.mark.parametrize(
    ("f", "text"),
    [(-1, "f = -1 must be at least 0"), (1.5, "f = 1.5 .*whole number"), ("2", "whole number")],
)
def test_wrong_numbers_are_refused(rule, f, text):
    with pytest.raises(ValueError, match=text):
        rule(f)
    with pytest.raises(ValueError, match="m = 0 must be at least 1"):
        multi_krum(1, 0)
