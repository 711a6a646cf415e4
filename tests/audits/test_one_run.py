"""The audit of one run is that of its theorem, and holds whatever number of guesses is best."""

import math
from fractions import Fraction

import numpy as np
import pytest

from fljax.audits.bounds.one_run import (
    audit_one_run,
    correct_guesses,
    epsilon_of_guesses,
    guess_sizes,
    p_value,
)
from fljax.privacy import accounting


def theorem(m, r, v, epsilon, delta):
    """Returns corollary 5.4 term by term, in exact fractions of q and delta."""
    q, delta = Fraction(1 / (1 + math.exp(-epsilon))), Fraction(delta)
    pmf = [math.comb(r, n) * q**n * (1 - q) ** (r - n) for n in range(r + 1)]
    beta = sum(pmf[v:])
    alpha = max((sum(pmf[max(v - i, 0) : v]) / i for i in range(1, m + 1)), default=0)
    return float(min(1, beta + 2 * m * delta * alpha))


@pytest.mark.parametrize("delta", [0.0, 1e-5, 1e-2])
@pytest.mark.parametrize("epsilon", [0.0, 0.5, 3.0])
def test_p_values_are_those_of_the_theorem(epsilon, delta):
    for m, r, v in [(1, 1, 1), (1, 0, 0), (10, 7, 0), (10, 7, 5), (40, 30, 25), (40, 30, 30)]:
        expected = theorem(m, r, v, epsilon, delta)
        assert p_value(m, r, v, epsilon, delta) == pytest.approx(expected, rel=1e-10)


def test_bounds_are_those_that_the_paper_prints():
    """Appendix D and section 7."""
    assert epsilon_of_guesses(1000, 100, 75, 1e-4) == pytest.approx(0.673, abs=1e-3)
    assert epsilon_of_guesses(100_000, 1510, 1439, 1e-5) == pytest.approx(2.675, abs=1e-3)


@pytest.mark.parametrize("r", [5, 16, 1000])
def test_right_about_all_has_a_closed_form(r):
    expected = -math.log(0.05 ** (-1 / r) - 1)
    assert epsilon_of_guesses(r, r, r) == pytest.approx(max(expected, 0), abs=1e-8)


def test_bounds_grow_with_right_guesses_and_fall_with_delta_and_confidence():
    by_correct = [epsilon_of_guesses(200, 100, v, 1e-5) for v in range(50, 101, 5)]
    assert by_correct[0] == 0 and (np.diff(by_correct)[2:] > 0).all()
    by_delta = [epsilon_of_guesses(200, 100, 90, each) for each in (0.0, 1e-5, 1e-3, 1e-2)]
    assert (np.diff(by_delta) < 0).all() and by_delta[1] > 0.99 * by_delta[0]
    assert epsilon_of_guesses(200, 100, 90, 1 / 200) < 0.5 * by_delta[0]
    by_confidence = [epsilon_of_guesses(200, 100, 90, 0.0, each) for each in (0.5, 0.95, 0.999)]
    assert (np.diff(by_confidence) < 0).all()
    assert epsilon_of_guesses(200, 0, 0) == epsilon_of_guesses(0, 0, 0) == 0


@pytest.mark.parametrize("epsilon", [0.5, 2.0])
def test_randomized_responses_keep_their_epsilon(epsilon):
    """Each canary's coin is answered by itself: the mechanism for which the theorem is tight."""
    random = np.random.default_rng(int(10 * epsilon))
    bounds = []
    for _ in range(400):
        included = random.random(200) < 0.5
        honest = random.random(200) < 1 / (1 + math.exp(-epsilon))
        bounds.append(audit_one_run(included == honest, included).epsilon)
    assert np.mean(np.array(bounds) <= epsilon) >= 0.95
    assert max(bounds) > 0.5 * epsilon


def test_many_canaries_of_randomized_response_come_within_a_tenth():
    random = np.random.default_rng(5)
    included = random.random(100_000) < 0.5
    honest = random.random(100_000) < 1 / (1 + math.exp(-1.0))
    scores = np.where(included == honest, 1.0, -1.0)
    assert 0.9 < audit_one_run(scores, included).epsilon < 1.0


def summed(noise, seed, canaries=1000):
    """Returns what a noisy sum shows of canaries that are a coordinate each, and who is in it."""
    random = np.random.default_rng([3, seed])
    included = random.random(canaries) < 0.5
    return included + noise * random.standard_normal(canaries), included


def test_a_quarter_of_the_noise_is_caught():
    claimed = accounting.epsilon_of_gaussian(2.0, 1e-5)
    assert audit_one_run(*summed(2.0 / 4, 0), delta=1e-5).exceeds(claimed)
    for seed in range(20):
        assert not audit_one_run(*summed(2.0, seed), delta=1e-5).exceeds(claimed)


def test_the_best_number_of_guesses_pays_for_those_that_were_tried():
    random = np.random.default_rng(1)
    included = random.random(300) < 0.5
    scores = included + random.standard_normal(300)
    bound = audit_one_run(scores, included, confidence=0.9)
    sizes = guess_sizes(300)
    each = {
        (most, least): epsilon_of_guesses(
            300, most + least, correct_guesses(scores, included, most, least),
            confidence=1 - 0.1 / len(sizes),
        )
        for most, least in sizes
    }  # fmt: skip
    assert bound.epsilon == pytest.approx(max(each.values()), abs=1e-8) and bound.epsilon > 0.2
    assert bound.numbers["guesses"] == sum(max(each, key=each.get))
    alone = audit_one_run(scores, included, confidence=0.9, guesses=[max(each, key=each.get)])
    assert alone.epsilon > bound.epsilon and alone.numbers["tried"] == 1


def test_guesses_go_to_the_highest_and_the_lowest():
    scores = [3.0, -np.inf, 2.0, np.inf, 0.0]
    included = np.array([True, True, False, True, False])
    found = {(a, b): correct_guesses(scores, included, a, b) for a in range(4) for b in range(3)}
    assert [found[a, 0] for a in range(4)] == [0, 1, 2, 2]
    assert [found[0, b] for b in range(3)] == [0, 0, 1]
    assert found[3, 2] == 3
    assert correct_guesses([0.0, 0.0], np.array([False, True]), 1, 1) == 2  # in their order


@pytest.mark.parametrize("canaries", [0, 1, 7, 8, 9, 100])
def test_sizes_fit_the_canaries(canaries):
    sizes = guess_sizes(canaries)
    assert sizes and all(0 <= most and 0 <= least for most, least in sizes)
    assert max(map(sum, sizes)) == canaries
    nothing = audit_one_run(np.zeros(canaries), np.zeros(canaries, bool))
    assert nothing.epsilon == 0 or canaries  # chance may put all outside


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: p_value(10, 11, 5, 0.0), "guesses = 11 and canaries = 10: only what"),
        (lambda: p_value(10, 5, 6, 0.0), "correct = 6, guesses = 5"),
        (lambda: p_value(10, 5, -1, 0.0), "correct = -1 must be at least 0"),
        (lambda: p_value(10, 5, 2, -1.0), "epsilon = -1.0 must be at least 0"),
        (lambda: p_value(10, 5, 2, 1.0, 1.0), "delta = 1.0 must be at least 0 and below 1"),
        (lambda: epsilon_of_guesses(10, 5, 2.5), "correct = 2.5 .* must be a whole number"),
        (lambda: epsilon_of_guesses(10, 5, 2, confidence=2), "confidence = 2"),
        (lambda: audit_one_run([1.0], [1]), "must be a number and a truth value for each"),
        (lambda: audit_one_run([1.0], np.array([True, False])), "must be a number and a truth"),
        (lambda: audit_one_run([math.nan], np.array([True])), "1 of 1 scores are NaN"),
        (lambda: audit_one_run([1.0], np.array([True]), guesses=[]), "guesses = .. tries nothing"),
        (
            lambda: correct_guesses([1.0, 2.0], np.array([True, False]), 2, 1),
            "most = 2 and least = 1 must be at least 0, and together",
        ),
    ],
)
def test_wrong_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
