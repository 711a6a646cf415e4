"""Draws in proportion to weights have the probabilities that they say."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from selection import reference_selection as reference

from fljax.core import random
from fljax.selection import draws

ROUNDS = 20_000
# a sound draw is refused once in a thousand seeds; these seeds are none of them
RARE = 1e-3


def assert_drawn_as(found, expected):
    """Compares how often each outcome came with its probability."""
    outcomes = list(expected)
    counts = np.array([found.count(outcome) for outcome in outcomes])
    assert counts.sum() == len(found)
    chances = np.array([expected[outcome] for outcome in outcomes])
    assert chisquare(counts, chances / chances.sum() * len(found)).pvalue > RARE


def uniforms_of(round):
    return lambda batch, numbers: random.uniform(3, "test", round, numbers, batch)


@pytest.mark.parametrize(
    "weights",
    [
        [1.0, 4.0, 0.0, 2.0, 3.0],
        [1e12, 1.0, 2.0, 0.0, 3.0],  # which batches do not get through
    ],
)
def test_different_entries_are_drawn_one_after_another(weights):
    weights = np.array(weights)
    cumulative = np.cumsum(weights)
    found = [
        tuple(draws.distinct(weights, cumulative, 3, uniforms_of(round)).tolist())
        for round in range(ROUNDS // 4)
    ]
    likely = {key: chance for key, chance in reference.successive(weights, 3).items()}
    rare = {key for key, chance in likely.items() if chance * len(found) < 1}
    assert not rare & set(found)
    assert_drawn_as(found, {key: likely[key] for key in likely.keys() - rare})


def test_excluded_entries_are_passed_over():
    weights = np.array([1.0, 4.0, 5.0, 2.0, 3.0])
    excluded = np.array([False, True, False, False, True])
    found = [
        tuple(draws.distinct(weights, np.cumsum(weights), 2, uniforms_of(r), excluded).tolist())
        for r in range(ROUNDS // 4)
    ]
    assert_drawn_as(found, reference.successive(np.where(excluded, 0, weights), 2))


def test_there_are_no_more_entries_than_have_a_weight():
    weights = np.array([0.0, 1.0, 0.0, 2.0])
    found = draws.distinct(weights, np.cumsum(weights), 4, uniforms_of(0))
    assert sorted(found.tolist()) == [1, 3]
    assert draws.distinct(weights, np.cumsum(weights), 0, uniforms_of(0)).tolist() == []


def test_points_at_the_ends_fall_on_entries_with_a_weight():
    cumulative = np.cumsum([0.0, 0.1, 0.0, 0.2, 0.0])
    assert draws.places(cumulative, np.array([1e-300, 1 - 1e-16, 1.0])).tolist() == [1, 3, 3]


@given(st.lists(st.integers(0, 20), min_size=1, max_size=12), st.data())
@settings(max_examples=60, deadline=None)
def test_inclusion_is_proportional_where_it_can_be(weights, data):
    positive = sum(weight > 0 for weight in weights)
    count = data.draw(st.integers(0, positive))
    found = draws.inclusion(np.array(weights, float), count)
    expected = reference.inclusion(weights, count) if count else np.zeros(len(weights))
    np.testing.assert_allclose(found, expected, atol=1e-12)
    assert found.sum() == pytest.approx(count) and found.min() >= 0 and found.max() <= 1


@given(st.lists(st.integers(0, 4), max_size=9), st.integers(0, 10))
@settings(max_examples=60, deadline=None)
def test_the_smallest_come_in_order(values, count):
    found = draws.smallest(np.array(values, float), count)
    assert found.tolist() == np.argsort(values, kind="stable")[:count].tolist()


@pytest.mark.parametrize(
    ("pi", "count"),
    [
        ([0.5, 0.3, 0.9, 0.1, 0.7, 0.25, 0.25], 3),
        ([0.9, 0.9, 0.9, 0.9, 0.4], 4),  # clients that lie across follow each other
        ([0.25] * 4 + [0.5] * 2, 2),  # none lies across
        ([0.4, 0.6], 1),
    ],
)
def test_strata_give_one_each_with_exact_probabilities(pi, count):
    expected = reference.stratified_cohorts(pi, count)
    assert sum(expected.values()) == pytest.approx(1)
    for client, probability in enumerate(pi):
        total = sum(chance for cohort, chance in expected.items() if client in cohort)
        assert total == pytest.approx(probability)
    picks, turns = (
        random.uniform(5, name, np.arange(ROUNDS)[:, None], np.arange(count))
        for name in ("picks", "turns")
    )
    found = draws.one_of_each(draws.strata(np.array(pi), count), picks, turns)
    assert all(len(set(cohort)) == count for cohort in found.tolist())
    assert_drawn_as([tuple(cohort) for cohort in found.tolist()], expected)
