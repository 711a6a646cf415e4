"""Intervals of chances hold as often as they say, and are those of the binomial distribution."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fljax.audits.intervals import clopper_pearson, clopper_pearson_above, clopper_pearson_below


def tail(successes: int, trials: int, chance: float) -> float:
    """Returns how likely as many successes or more are, by the sum over all of them."""
    return sum(
        math.comb(trials, n) * chance**n * (1 - chance) ** (trials - n)
        for n in range(successes, trials + 1)
    )


@pytest.mark.parametrize(("successes", "trials"), [(1, 1), (3, 10), (10, 10), (17, 40), (1, 200)])
def test_at_the_bound_as_many_successes_are_as_unlikely_as_it_says(successes, trials):
    low, high = clopper_pearson(successes, trials, 0.9)
    assert tail(successes, trials, low) == pytest.approx(0.05)
    one_sided = float(clopper_pearson_below(successes, trials, 0.95))
    assert one_sided == pytest.approx(float(low), rel=1e-12)
    if successes < trials:
        assert 1 - tail(successes + 1, trials, high) == pytest.approx(0.05)
    assert float(clopper_pearson_above(successes, trials, 0.95)) == pytest.approx(float(high))


@pytest.mark.parametrize("chance", [0.003, 0.1, 0.5, 0.98])
@pytest.mark.parametrize("trials", [1, 7, 50])
def test_intervals_hold_as_often_as_they_say(chance, trials):
    counts = np.arange(trials + 1)
    likely = [tail(n, trials, chance) - tail(n + 1, trials, chance) for n in counts]
    low, high = clopper_pearson(counts, trials, 0.8)
    assert np.dot(likely, (low <= chance) & (chance <= high)) >= 0.8
    assert np.dot(likely, clopper_pearson_below(counts, trials, 0.8) <= chance) >= 0.8 - 1e-12
    assert np.dot(likely, clopper_pearson_above(counts, trials, 0.8) >= chance) >= 0.8 - 1e-12


def test_counts_broadcast_and_no_trial_tells_nothing():
    low, high = clopper_pearson([[0], [1]], [2, 4, 8])
    assert low.shape == high.shape == (2, 3) and low.dtype == np.float64
    assert (low[0] == 0).all() and (low[1] > 0).all() and (np.diff(high) < 0).all()
    assert [float(bound) for bound in clopper_pearson(0, 0)] == [0, 1]
    assert clopper_pearson([], 5)[0].shape == (0,)


def test_bounds_that_are_almost_sure_are_bounds():
    low = [float(clopper_pearson_below(50, 100, 1 - miss)) for miss in (1e-3, 1e-9, 1e-15)]
    assert 0 < low[2] < low[1] < low[0] < 0.5


@pytest.mark.parametrize(
    ("successes", "trials", "confidence", "message"),
    [
        (3, 2, 0.95, "successes = 3 must be at most as many as trials, 2"),
        (1.5, 2, 0.95, "successes = 1.5 .* must be whole numbers"),
        (-1, 2, 0.95, "successes = -1 .* must be whole numbers"),
        (1, np.nan, 0.95, "trials = nan .* must be whole numbers"),
        (1, 2, 95, "confidence = 95 .* must be a number between 0 and 1, such as 0.95"),
        (1, 2, 1.0, "confidence = 1.0 .* must be a number between 0 and 1"),
        (1, 2, "0.9", "confidence = '0.9' .* must be a number between 0 and 1"),
    ],
)
def test_what_is_no_count_or_confidence_is_refused(successes, trials, confidence, message):
    for function in (clopper_pearson, clopper_pearson_below, clopper_pearson_above):
        with pytest.raises(ValueError, match=message):
            function(successes, trials, confidence)
