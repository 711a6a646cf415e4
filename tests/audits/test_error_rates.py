"""Bounds by error rates hold as often as they say, and come near the truth of many trials."""

import math

import numpy as np
import pytest
import scipy

from fljax.audits.bounds.error_rates import (
    audit_scores,
    best_threshold,
    epsilon_of_errors,
    mu_of_errors,
)
from fljax.audits.bounds.gaussians import (
    delta_between_gaussians,
    epsilon_between_gaussians,
    epsilon_of_gaussian_privacy,
)
from fljax.privacy import accounting

AUDITS = 400


def by_hand(false_positives, outside, false_negatives, inside, delta, confidence):
    """Returns the bound from the papers' formula, rate by rate."""
    each = (1 - confidence) / 2
    rates = [
        scipy.special.bdtri(errors, trials, each) if errors < trials else 1.0
        for errors, trials in ((false_positives, outside), (false_negatives, inside))
    ]
    found = [0.0]
    for one, other in (rates, rates[::-1]):
        if 1 - delta - one > 0:
            found.append(math.log((1 - delta - one) / other))
    return max(found)


@pytest.mark.parametrize("delta", [0.0, 1e-5, 0.2])
def test_bounds_are_those_of_the_formula(delta):
    cases = np.random.default_rng(0).integers(0, 101, (50, 2))
    cases = np.concatenate([cases, [[0, 0], [100, 100], [0, 100], [100, 0]]])
    found = epsilon_of_errors(cases[:, 0], 100, cases[:, 1], 200, delta, 0.9)
    expected = [by_hand(fp, 100, fn, 200, delta, 0.9) for fp, fn in cases]
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    assert (found > 0).any() and (found == 0).any()


def test_nothing_is_proven_by_no_trials_and_more_trials_prove_more():
    assert epsilon_of_errors(0, 0, 0, 0) == 0 == mu_of_errors(0, 0, 0, 0)
    assert epsilon_of_errors(0, 5, 0, 0) == 0 == mu_of_errors(0, 5, 0, 0)
    sizes = np.array([50, 500, 5000, 50000])
    for bounds in (
        epsilon_of_errors(sizes // 10, sizes, sizes // 2, sizes),
        mu_of_errors(sizes // 10, sizes, sizes // 2, sizes),
        epsilon_of_errors([30, 20, 10], 100, 50, 100),
        [epsilon_of_errors(5, 100, 50, 100, confidence=each) for each in (0.99, 0.95, 0.9)],
    ):
        assert (np.diff(bounds) > 0).all()
    assert epsilon_of_errors(5, 100, 50, 100, 0.3) < epsilon_of_errors(5, 100, 50, 100)


def responses(epsilon, trials, seed, audits=1):
    """Returns how often randomized response of a bit errs: (false positives, false negatives)."""
    wrong = 1 / (1 + math.exp(epsilon))
    return np.random.default_rng(seed).binomial(trials, wrong, (2, audits))


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 4.0])
def test_randomized_response_keeps_its_epsilon(epsilon):
    wrong = responses(epsilon, 200, seed=1, audits=AUDITS)
    bounds = epsilon_of_errors(wrong[0], 200, wrong[1], 200)
    assert (bounds <= epsilon).mean() >= 0.95
    assert (mu_of_errors(wrong[0], 200, wrong[1], 200) > 0).any()


@pytest.mark.parametrize("epsilon", [1.0, 3.0])
def test_many_trials_of_randomized_response_come_within_a_tenth(epsilon):
    ((false_positives,), (false_negatives,)) = responses(epsilon, 100_000, seed=2)
    bound = epsilon_of_errors(false_positives, 100_000, false_negatives, 100_000)
    assert 0.9 * epsilon < bound < epsilon


def gaussian_audit(noise, trials, seed, **options):
    """Returns the bound by scores of a sum of sensitivity 1 with noise."""
    draws = noise * np.random.default_rng([7, seed]).standard_normal((2, trials))
    return audit_scores(draws[0] + 1, draws[1], delta=1e-3, **options)


@pytest.mark.parametrize("gaussian", [False, True])
def test_gaussian_noise_keeps_its_epsilon_whatever_threshold_is_chosen(gaussian):
    truth = accounting.epsilon_of_gaussian(1.0, 1e-3)
    bounds = [gaussian_audit(1.0, 200, seed, gaussian=gaussian) for seed in range(AUDITS)]
    kept = np.mean([bound.epsilon <= truth for bound in bounds])
    assert kept >= 0.95 and any(bound.epsilon > 0.3 * truth for bound in bounds)
    assert {bound.numbers["inside"] for bound in bounds} == {100}


def test_a_quarter_of_the_noise_is_caught():
    claimed = accounting.epsilon_of_gaussian(2.0, 1e-3)
    assert gaussian_audit(0.5, 1000, 0).exceeds(claimed)
    assert not gaussian_audit(2.0, 1000, 0).exceeds(claimed)


def test_gaussian_privacy_proves_more_and_comes_near():
    truth = accounting.epsilon_of_gaussian(1.0, 1e-3)
    plain = gaussian_audit(1.0, 20_000, 0)
    more = gaussian_audit(1.0, 20_000, 0, gaussian=True)
    assert plain.epsilon < 0.85 * truth < 0.9 * truth < more.epsilon < truth
    assert more.epsilon == pytest.approx(
        accounting.epsilon_of_gaussian(1 / more.numbers["mu"], 1e-3), rel=1e-6
    )
    assert len(more.assumes) == len(plain.assumes) + 1


def test_a_threshold_that_is_given_uses_all_trials():
    bound = gaussian_audit(1.0, 300, 3, threshold=0.5)
    draws = np.random.default_rng([7, 3]).standard_normal((2, 300))
    wrong = int((draws[1] >= 0.5).sum()), int((draws[0] + 1 < 0.5).sum())
    assert bound.numbers == {
        "false_positives": wrong[0], "outside": 300, "false_negatives": wrong[1], "inside": 300,
        "threshold": 0.5,
    }  # fmt: skip
    assert bound.epsilon == epsilon_of_errors(wrong[0], 300, wrong[1], 300, 1e-3)


def test_the_best_threshold_is_that_of_all_thresholds():
    draws = np.random.default_rng(4).standard_normal((2, 60)).round(1)
    inside, outside = np.append(draws[0] + 1, np.inf), np.append(draws[1], -np.inf)
    bounds = {
        each: by_hand((outside >= each).sum(), 61, (inside < each).sum(), 61, 0.01, 0.9)
        for each in np.unique([inside, outside])
    }
    assert best_threshold(inside, outside, 0.01, 0.9) == max(bounds, key=bounds.get)
    assert best_threshold([], []) == np.inf


def test_scores_without_any_trials_or_difference_prove_nothing():
    assert audit_scores([], []).epsilon == 0
    assert audit_scores([1.0], [2.0]).epsilon == 0
    assert audit_scores(np.zeros(500), np.zeros(500)).epsilon == 0
    apart = audit_scores(np.full(500, np.inf), np.full(500, -np.inf)).epsilon
    assert apart == pytest.approx(by_hand(0, 250, 0, 250, 0, 0.95))


@pytest.mark.parametrize("noise", [0.2, 1.0, 5.0])
@pytest.mark.parametrize("delta", [1e-8, 1e-3, 0.2])
def test_epsilon_of_equal_spreads_is_that_of_the_accountant(noise, delta):
    expected = accounting.epsilon_of_gaussian(noise, delta)
    for pair in (((3.0, noise), (4.0, noise)), ((1.0, noise), (0.0, noise))):
        assert epsilon_between_gaussians(*pair, delta) == pytest.approx(expected, abs=1e-8)
    assert epsilon_of_gaussian_privacy(1 / noise, delta) == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize("second", [(1.0, 0.5), (1.0, 2.0), (0.0, 1.3), (-2.0, 1.0 + 1e-9)])
def test_delta_between_gaussians_is_the_integral(second):
    (mean, deviation), epsilon = second, 0.7
    x = np.linspace(-30, 30, 200_001)
    p = np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)
    q = np.exp(-(((x - mean) / deviation) ** 2) / 2) / (deviation * math.sqrt(2 * math.pi))
    expected = max(
        np.maximum(one - math.exp(epsilon) * other, 0).sum() * (x[1] - x[0])
        for one, other in ((p, q), (q, p))
    )
    assert delta_between_gaussians((0.0, 1.0), second, epsilon) == pytest.approx(expected, rel=1e-6)
    found = epsilon_between_gaussians((0.0, 1.0), second, expected)
    assert found == pytest.approx(epsilon, rel=1e-5)
    assert found == epsilon_between_gaussians(second, (0.0, 1.0), expected)


def test_gaussians_that_are_equal_or_have_no_spread():
    assert epsilon_between_gaussians((1.0, 2.0), (1.0, 2.0), 1e-9) == 0
    assert epsilon_between_gaussians((1.0, 0.0), (1.0, 0.0), 1e-9) == 0
    assert epsilon_between_gaussians((1.0, 0.0), (1.0, 2.0), 1e-9) == math.inf
    assert epsilon_between_gaussians((0.0, 1.0), (1e-9, 1.0), 1e-3) == 0
    assert epsilon_between_gaussians((0.0, 1.0), (300.0, 1.0), 1e-9) > 40_000
    with pytest.raises(ValueError, match="standard deviation = -1 are those of no Gaussian"):
        epsilon_between_gaussians((0.0, -1.0), (0.0, 1.0), 1e-3)
    with pytest.raises(ValueError, match="delta = 0.0 must be above 0"):
        epsilon_between_gaussians((0.0, 1.0), (1.0, 1.0), 0.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"delta": 1.0}, "delta = 1.0 must be at least 0 and below 1"),
        ({"confidence": 0}, "confidence = 0 .* must be a number between 0 and 1"),
        ({"gaussian": True}, "delta = 0.0 must be above 0"),
    ],
)
def test_wrong_arguments_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        audit_scores([1.0, 2.0], [0.0, 1.0], **options)


def test_scores_that_are_no_numbers_are_refused():
    with pytest.raises(ValueError, match="outside: 1 of 2 scores are NaN"):
        audit_scores([1.0], [0.0, math.nan])


def test_a_record_is_plain():
    plain = gaussian_audit(1.0, 10, 0).plain()
    assert plain["name"] == "error rates" and plain["estimate"] is None
    assert isinstance(plain["assumes"], list) and plain["numbers"]["inside"] == 5
    assert audit_scores([], []).plain()["numbers"]["threshold"] is None
