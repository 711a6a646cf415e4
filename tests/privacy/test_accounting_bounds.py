"""Accountants: every epsilon is an upper bound, close to exact ones, and moves the right way."""

from __future__ import annotations

import math

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies
from scipy import integrate, optimize, stats

from fljax.privacy import accounting
from fljax.privacy.accounting import conversion, pld, rdp

ORDERS = np.array([1.1, 1.7, 2.0, 2.5, 3.9, 5.0, 17.3])


def delta_of_one(noise: float, rate: float, epsilon, added: bool):
    """Returns delta of one release from a Poisson sample, in closed form; any epsilons."""
    ratio = np.exp(-epsilon) if added else np.exp(epsilon)
    with np.errstate(divide="ignore"):
        cut = noise**2 * np.log(np.maximum(ratio - (1 - rate), 0) / rate) + 0.5
    side = stats.norm.cdf if added else stats.norm.sf
    absent, present = side(cut / noise), side((cut - 1) / noise)
    mixed = (1 - rate) * absent + rate * present
    first, second = (absent, mixed) if added else (mixed, absent)
    return first - np.exp(epsilon) * second


def exact_epsilon(delta_at, delta: float, most: float = 60.0) -> float:
    if delta_at(0.0) <= delta:
        return 0.0
    return optimize.brentq(lambda epsilon: delta_at(epsilon) - delta, 0, most, xtol=1e-10)


@pytest.mark.parametrize(("noise", "rate"), [(1.0, 0.1), (0.5, 0.3), (4.0, 0.02)])
def test_divergences_are_integrals(noise, rate):
    """The whole orders, and exact fractional ones, by adaptive quadrature of (P/Q)^order."""

    def integral(order: float) -> float:
        def integrand(x: float) -> float:
            ratio = np.logaddexp(math.log1p(-rate), math.log(rate) + (2 * x - 1) / (2 * noise**2))
            return math.exp(order * ratio + stats.norm.logpdf(x, 0, noise))

        edges = np.linspace(-15 * noise, order + 15 * noise, 40)
        pieces = zip(edges[:-1], edges[1:], strict=True)
        total = sum(integrate.quad(integrand, *piece, epsabs=0)[0] for piece in pieces)
        return math.log(total) / (order - 1)

    expected = np.array([integral(order) for order in ORDERS])
    found = rdp.poisson_gaussian(ORDERS, noise, rate, exact=True)
    np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-12)
    bounds = rdp.poisson_gaussian(ORDERS, noise, rate)
    whole = np.round(ORDERS) == ORDERS
    np.testing.assert_allclose(bounds[whole], expected[whole], rtol=1e-8)
    assert (bounds >= expected * (1 - 1e-8)).all()


def test_of_several_gaussian_releases():
    for noise, rounds in [(1.0, 1), (10.0, 100), (30.0, 1000), (1.0, 50)]:
        for delta in (1e-2, 1e-5, 1e-9, 1e-12):
            exact = accounting.epsilon_of_gaussian(noise / math.sqrt(rounds), delta)
            found = accounting.epsilon([(accounting.gaussian(noise), rounds)], delta)
            # of tiny deltas, what rounding may have lost is a part
            assert exact <= found <= exact + (1e-3 if delta > 1e-10 else 0.05) * max(1, exact)


@pytest.mark.parametrize(("noise", "rate"), [(1.0, 0.1), (0.5, 0.4), (3.0, 0.01)])
def test_of_one_and_of_two_samples(noise, rate):
    """Two releases by integrating delta of the second over the loss of the first."""

    x = np.linspace(-9 * noise, 1 + 9 * noise, 4001)  # analytic, so the trapezoidal rule is exact
    absent, present = stats.norm.pdf(x, 0, noise), stats.norm.pdf(x, 1, noise)
    mixed = (1 - rate) * absent + rate * present

    def delta_of_two(epsilon: float, added: bool) -> float:
        first, second = (absent, mixed) if added else (mixed, absent)
        rest = epsilon - np.log(first / second)
        return (first * delta_of_one(noise, rate, rest, added)).sum() * (x[1] - x[0])

    event, delta = accounting.poisson_gaussian(noise, rate), 1e-4
    for rounds in (1, 2):
        exact = max(
            exact_epsilon(
                lambda epsilon, added=added: (
                    delta_of_one(noise, rate, epsilon, added)
                    if rounds == 1  # noqa: B023
                    else delta_of_two(epsilon, added)
                ),
                delta,
            )
            for added in (False, True)
        )
        found = accounting.epsilon([(event, rounds)], delta)
        assert exact - 1e-6 <= found <= exact * (1 + 1e-3) + 1e-6


def test_of_randomized_response():
    """k of n answers are true with a binomial probability; their loss is (2k - n) epsilon."""
    for epsilon0, rounds, delta in [(0.5, 30, 1e-6), (2.0, 7, 1e-3), (0.01, 1000, 1e-5)]:
        true = np.arange(rounds + 1)
        masses = stats.binom.pmf(true, rounds, 1 / (1 + math.exp(-epsilon0)))
        losses = (2 * true - rounds) * epsilon0

        def delta_at(epsilon: float, masses=masses, losses=losses) -> float:
            return masses @ np.maximum(-np.expm1(epsilon - losses), 0)

        exact = exact_epsilon(delta_at, delta)
        found = accounting.epsilon([(accounting.pure(epsilon0), rounds)], delta)
        assert exact <= found <= exact * 1.01
    assert accounting.epsilon(accounting.pure(3.0), 1e-12) == pytest.approx(3.0)


def test_a_discretized_release_dominates_the_release():
    """Connecting the dots: delta is larger at no epsilon but by what lies between grid points."""
    for noise, rate in [(1.0, 0.1), (0.4, 0.5)]:
        for pair, added in zip(pld.gaussian_pairs(noise, rate), (False, True), strict=True):
            losses = pld.discretize(pair, 0.05)
            assert losses.probabilities.sum() + losses.infinite == pytest.approx(1, abs=1e-12)
            grid = losses.step * (losses.lowest + np.arange(len(losses.probabilities)))
            other = (losses.probabilities * np.exp(-grid)).sum()
            assert other == pytest.approx(1, abs=1e-6)  # of the neighbour, but for what is cut off
            for epsilon in np.linspace(-0.5, 3, 50):
                above = np.maximum(-np.expm1(epsilon - grid), 0) @ losses.probabilities
                exact = delta_of_one(noise, rate, epsilon, added)
                assert exact - 1e-12 <= above + losses.infinite <= exact + 5e-3


noises = strategies.floats(0.4, 20)
rates = strategies.floats(0.001, 1)
counts = strategies.integers(1, 3000)
deltas = strategies.sampled_from([1e-2, 1e-5, 1e-8])
few = hypothesis.settings(max_examples=6, deadline=None, derandomize=True)


@few
@hypothesis.given(noises, rates, counts, deltas)
def test_losses_show_no_more_than_divergences(noise, rate, rounds, delta):
    event = accounting.poisson_gaussian(noise, rate)
    found = accounting.epsilons([(event, rounds)], delta)
    assert 0 <= found["pld"] <= found["rdp"] * (1 + 1e-3) + 1e-4
    without_sampling = accounting.epsilon_of_gaussian(noise / math.sqrt(rounds), delta)
    assert found["pld"] <= without_sampling * (1 + 1e-3) + 1e-4
    exact = accounting.poisson_gaussian(noise, rate, exact_rdp=True)
    assert accounting.epsilon([(exact, rounds)], delta, "rdp") <= found["rdp"] * (1 + 1e-12)


@few
@hypothesis.given(noises, rates, counts, deltas, strategies.sampled_from(accounting.ACCOUNTANTS))
def test_less_noise_more_data_more_rounds_and_less_delta_cost_more(
    noise, rate, rounds, delta, accountant
):
    def epsilon(noise=noise, rate=rate, rounds=rounds, delta=delta) -> float:
        run = [(accounting.poisson_gaussian(noise, rate), rounds)]
        return accounting.epsilon(run, delta, accountant) * (1 - 1e-3) - 1e-4

    found = accounting.epsilon(
        [(accounting.poisson_gaussian(noise, rate), rounds)], delta, accountant
    )
    assert epsilon(noise=1.3 * noise) <= found
    assert epsilon(rate=0.7 * rate) <= found
    assert epsilon(rounds=max(1, rounds // 2)) <= found
    assert epsilon(delta=10 * delta) <= found


def test_any_mechanism_on_a_sample_costs_no_less_than_its_own_theorem():
    event = accounting.sampled(accounting.gaussian(2.0), 0.05)
    own = accounting.poisson_gaussian(2.0, 0.05, exact_rdp=True)
    whole = np.arange(2.0, 40)
    assert (event.rdp(whole) >= own.rdp(whole) * (1 - 1e-9)).all()
    np.testing.assert_allclose(event.rdp(whole[:1]), own.rdp(whole[:1]), rtol=1e-9)
    assert (event.rdp(rdp.ORDERS) <= accounting.gaussian(2.0).rdp(rdp.ORDERS)).all()


def test_rounds_are_counted_alike_one_by_one_and_at_once():
    events = [(accounting.poisson_gaussian(1.0, 0.05), 1), (accounting.gaussian(20.0), 2)]
    spent = accounting.spending(events, 1e-5)
    assert spent(0) == {"rdp": 0.0, "pld": 0.0}
    for rounds in (1, 7, 300):
        whole = [(event, times * rounds) for event, times in events]
        expected = accounting.epsilons(whole, 1e-5)
        assert spent(rounds) == pytest.approx(expected, rel=1e-12)
        assert spent(rounds, ("rdp",)) == {"rdp": spent(rounds)["rdp"]}


@pytest.mark.parametrize("accountant", accounting.ACCOUNTANTS)
def test_budgets_are_kept_and_used(accountant):
    def run(noise: float):
        return [(accounting.poisson_gaussian(noise, 0.05), 200)]

    noise = accounting.calibrate(2.0, 1e-5, run, accountant)
    assert accounting.epsilon(run(noise), 1e-5, accountant) <= 2.0
    assert accounting.epsilon(run(noise * 0.998), 1e-5, accountant) > 2.0
    event = accounting.poisson_gaussian(1.0, 0.05)
    rounds = accounting.rounds_within(2.0, 1e-5, event, accountant)
    assert accounting.epsilon([(event, rounds)], 1e-5, accountant) <= 2.0
    assert accounting.epsilon([(event, rounds + 1)], 1e-5, accountant) > 2.0
    assert accounting.rounds_within(0.01, 1e-5, event, accountant) == 0


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "event",
    [
        accounting.poisson_gaussian(1e-3, 1e-8),  # losses of 500,000 that almost never come
        accounting.poisson_gaussian(1e-2, 0.1),
        accounting.gaussian(1e-2),
        accounting.poisson_gaussian(1e6, 0.999),
        accounting.pure(800.0),
        accounting.pure(1e-9),
    ],
    ids=lambda event: event.name,
)
def test_extreme_releases_are_counted_too(event):
    found = accounting.epsilons([(event, 1000)], 1e-6)
    assert 0 <= found["pld"] <= found["rdp"] < math.inf


def test_without_noise_nothing_is_hidden():
    for event in (
        accounting.gaussian(0.0),
        accounting.poisson_gaussian(0.0, 0.1),
        accounting.laplace(0.0),
    ):
        assert accounting.epsilons([(event, 3)], 1e-5) == {"rdp": math.inf, "pld": math.inf}
    assert accounting.epsilon_of_gaussian(0.0, 1e-5) == math.inf
    nobody = accounting.poisson_gaussian(1.0, 0.0)
    assert accounting.epsilons([(nobody, 100)], 1e-5) == {"rdp": 0.0, "pld": 0.0}
    assert accounting.epsilons([], 1e-5) == {"rdp": 0.0, "pld": 0.0}


REFUSED = [
    (lambda: accounting.epsilon(accounting.gaussian(1.0), 0.0), "delta = 0.0 must be above 0"),
    (lambda: accounting.epsilon(accounting.gaussian(1.0), 1.0), "below 1"),
    (lambda: accounting.epsilon(accounting.gaussian(1.0), 1e-5, "gdp"), "'gdp' is not one of"),
    (lambda: accounting.gaussian(-1.0), "noise_multiplier = -1.0 must be at least 0"),
    (lambda: accounting.poisson_gaussian(1.0, 1.2), "sampling_rate = 1.2 must be at least 0"),
    (lambda: accounting.without_replacement(1.0, 200, 100), "sample / population = 2.0"),
    (lambda: accounting.check_delta(1e-3, 1000), "Choose delta = 0.0005, which is N\\^-1.1"),
    (lambda: accounting.epsilon([(accounting.gaussian(1.0), 0.5)], 1e-5), "must be an event"),
    (lambda: accounting.epsilon([1.0], 1e-5), "must be an event"),
    (
        lambda: accounting.epsilon(accounting.without_replacement(1.0, 10, 100), 1e-5, "pld"),
        "no theorem for without_replacement.*Use 'rdp'",
    ),
    (
        lambda: accounting.epsilon(
            [
                (accounting.without_replacement(1.0, 10, 100), 1),
                (accounting.poisson_gaussian(1.0, 0.1), 1),
            ],
            1e-5,
            "rdp",
        ),
        "add_or_remove_one and replace_one",
    ),
    (
        lambda: accounting.sampled(accounting.without_replacement(1.0, 10, 100), 0.1),
        "Use an event that has",
    ),
    (
        lambda: accounting.calibrate(1.0, 1e-5, lambda noise: accounting.pure(5.0), "rdp"),
        "not kept by any noise",
    ),
    (
        lambda: accounting.rounds_within(1.0, 1e-5, accounting.zcdp(0.1), "pld"),
        "no theorem for these events",
    ),
]


@pytest.mark.parametrize(("call", "said"), REFUSED)
def test_what_no_theorem_covers_is_refused(call, said):
    with pytest.raises(ValueError, match=said):
        call()


def test_conversions_agree():
    assert conversion.noise_of_zcdp(0.0) == math.inf
    for noise in (0.3, 1.0, 7.0):
        epsilon = conversion.epsilon_of_gaussian(noise, 1e-6)
        assert conversion.delta_of_gaussian(noise, epsilon) == pytest.approx(1e-6, rel=1e-6)
        zcdp = accounting.zcdp(1 / (2 * noise**2))
        by_zcdp = accounting.epsilon(zcdp, 1e-6, "rdp")
        assert by_zcdp == accounting.epsilon(accounting.gaussian(noise), 1e-6, "rdp") >= epsilon
