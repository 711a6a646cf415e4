"""Accountants: epsilon of runs, against published values of Google's and Meta's accountants."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import special

from fljax.privacy import accounting
from fljax.privacy.accounting import conversion, rdp

# (q, z, rounds, delta): epsilon by Rényi divergences, and by privacy losses on a grid of 1e-4, of
# dp_accounting 0.6.0: RdpAccountant() and PLDAccountant(), each
# .compose(PoissonSampledDpEvent(q, GaussianDpEvent(z)), rounds).get_epsilon(delta)
RUNS = {
    (0.1, 1, 200, 539**-1.1): (8.261429163205177, 7.1038),
    (0.2, 2, 200, 539**-1.1): (6.060825339933505, 5.3591),
    (0.1, 1, 200, 715**-1.1): (8.468644942514185, 7.3188),
    (0.1, 1, 100, 1000**-1.1): (6.015724181335601, 5.1523),
    (0.03, 1, 500, 3400**-1.1): (4.041810306473678, 3.5463),
    (256 / 60000, 1.1, 14062, 1e-5): (2.5965558697943036, 2.381686),
    (100 / 3400, 1, 1500, 3400**-1.1): (7.070587727843762, 6.350059),
    (100 / 342477, 1, 1500, 1 / 342477): (0.6057007530185348, 0.053037),
    (0.01, 0.3, 1000, 1e-6): (87.07660250442594, 78.14051010415886),
    (0.01, 0.5, 1000, 1e-6): (17.56803271100911, 15.48352841367964),
    (0.01, 5.0, 1000, 1e-6): (0.2718816200630161, 0.2490784387750416),
    (0.1, 1, 100, 1e-5): (7.903850223578231, 7.0466),
}
# Of Opacus 1.6.0, for the same runs: RDPAccountant() and PRVAccountant(), each with
# .history = [(z, q, rounds)] and .get_epsilon(delta)
OPACUS = [
    (8.191517425863397, 7.114491367541077),
    (6.0596426398923615, 5.369617511214427),
    (8.398733205172405, 7.329523450554291),
    (6.00504011029154, 5.16284616643275),
    (4.041512051405342, 3.556573410570147),
    (2.5965558689607486, 2.391743695945225),
    (7.0689168712710435, 6.360515246272984),
    (0.6057007530185492, 0.06281584796622246),
    (86.72984142466979, 78.15391693571652),
    (17.557527646728683, 15.494433699159728),
    (0.27188162006306305, 0.25906358017223546),
    (7.899255002434629, 7.057056439561377),
]


@pytest.mark.parametrize(("run", "opacus"), list(zip(RUNS, OPACUS, strict=True)))
def test_poisson_samples(run, opacus):
    rate, noise, rounds, delta = run
    found = accounting.epsilons([(accounting.poisson_gaussian(noise, rate), rounds)], delta)
    assert found["rdp"] == pytest.approx(RUNS[run][0], rel=1e-9)
    assert found["pld"] == pytest.approx(RUNS[run][1], abs=1e-3)
    # theirs is larger by the error that it allows for, 0.01, and by their rounding
    assert opacus[1] - 0.015 < found["pld"] < opacus[1]
    exact = accounting.poisson_gaussian(noise, rate, exact_rdp=True)
    assert accounting.epsilon([(exact, rounds)], delta, "rdp") == pytest.approx(opacus[0], rel=1e-9)


def test_unlike_parts_and_other_mechanisms():
    mixed = [
        (accounting.poisson_gaussian(1.0, 0.1), 100),
        (accounting.poisson_gaussian(0.7, 0.02), 300),
        (accounting.gaussian(8.0), 5),
    ]
    found = accounting.epsilons(mixed, 1e-5)
    assert found["rdp"] == pytest.approx(9.77602921862254, rel=1e-9)
    assert found["pld"] == pytest.approx(8.728647643975465, abs=1e-3)
    found = accounting.epsilons([(accounting.laplace(5.0), 40)], 1e-6)
    assert found["rdp"] == pytest.approx(6.078069421468004, rel=1e-9)
    assert found["pld"] == pytest.approx(5.798457080289525, abs=1e-3)
    found = accounting.epsilon([(accounting.pure(0.5), 30)], 1e-6, "rdp")
    assert found == pytest.approx(14.35293910332587, rel=1e-9)  # RandomizedResponseDpEvent


def test_samples_of_fixed_size_move_by_twice_the_clip_norm():
    """dp_accounting takes noise over the sensitivity: GaussianDpEvent(z / 2), REPLACE_ONE."""
    run = [(accounting.without_replacement(1.0, 100, 1000), 100)]
    assert accounting.epsilon(run, 1e-5, "rdp") == pytest.approx(83.93691709771713, rel=1e-9)
    run = [(accounting.without_replacement(4.0, 50, 5000), 1000)]
    assert accounting.epsilon(run, 1e-6, "rdp") == pytest.approx(1.629192245961691, rel=1e-9)
    as_if_once = [(accounting.without_replacement(2.0, 100, 1000), 100)]
    assert accounting.epsilon(as_if_once, 1e-5, "rdp") == pytest.approx(14.0537502253, rel=1e-9)


def test_opacus():
    """opacus/tests/accountants_test.py: RDPAccountant, with orders 1.1, ..., 10.9, 12, ..., 63."""
    orders = np.array([1 + tenth / 10 for tenth in range(1, 100)] + list(range(12, 64)))

    def epsilon(noise: float, steps: int) -> float:
        divergences = rdp.poisson_gaussian(orders, noise, 0.04, exact=True)
        return conversion.epsilon_of_rdp(steps * divergences, 1e-5, orders)[0]

    assert epsilon(1.5, 2250) == pytest.approx(7.32911117143, abs=1e-9)
    # their search stops within 0.01 of the budget of 8
    assert 7.99 <= epsilon(1.416, 2250) <= 8.0
    assert 7.99 <= epsilon(1.3562, 2000) <= 8.0
    run = [(accounting.poisson_gaussian(1.5, 0.04, exact_rdp=True), 2250)]
    assert accounting.epsilon(run, 1e-5, "rdp") == pytest.approx(7.32911117143, abs=1e-9)


def test_tensorflow_privacy():
    """tensorflow_privacy/privacy/analysis/rdp_accountant_test.py."""
    orders = np.array([1.5, 2.5, 5, 50, 100])
    expected = [0.00065, 0.001085, 0.00218075, 0.023846, 167.416307]
    for exact in (False, True):
        found = 50 * rdp.poisson_gaussian(orders, 2.5, 0.01, exact)
        np.testing.assert_allclose(found[1:], expected[1:], atol=1e-5)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert rdp.poisson_gaussian(np.array([20.0]), 10, 1) == pytest.approx(0.1)
    assert rdp.poisson_gaussian(np.array([20.0]), 10, 0) == 0
    assert 10 * rdp.poisson_gaussian(np.array([5.0]), 2, 0.1) == pytest.approx(0.07737, abs=1e-5)
    # their noise is over the sensitivity, which is twice the clip norm
    found = 50 * rdp.without_replacement(np.array([1.001, 1.5, 2.5, 5, 50, 100, 512]), 5.0, 0.01)
    expected = [0.003470, 0.003470, 0.004638, 0.0087633, 0.098474, 167.766388, 1817.35871]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    # constant divergences, and noise chosen for (1, 1e-6)
    whole = np.arange(2.0, 33)
    epsilon, order = conversion.epsilon_of_rdp(np.full(len(whole), 1.1), 1e-5, whole)
    assert (order, epsilon) == (32, pytest.approx(1.32783806176, abs=1e-9))
    fine = np.arange(1001, 100000) / 1000
    found = conversion.epsilon_of_rdp(rdp.gaussian(fine, 4.530877117), 1e-6, fine)[0]
    assert found == pytest.approx(1, abs=1e-6)


def test_trees():
    """google-research/DP-FTRL, privacy.py: squared sensitivities of trees, counted node by node.

    And tensorflow_privacy/privacy/analysis/tree_aggregation_accountant_test.py: a user in one of
    1,600 leaves, and so in 11 nodes.
    """

    def squared_sensitivity(steps: int, epochs: int, completed: bool) -> int:
        size = steps * epochs
        leaves = np.zeros((2 ** math.ceil(math.log2(size)) if completed else size, steps))
        leaves[np.arange(size), np.arange(size) % steps] = 1
        total = (leaves**2).sum(0)
        while len(leaves) > 1:
            leaves = leaves[: len(leaves) // 2 * 2].reshape(-1, 2, steps).sum(1)
            total += (leaves**2).sum(0)
        return int(total.max())

    trees = 4 * squared_sensitivity(100, 20, True) + squared_sensitivity(100, 20, False)
    event = accounting.gaussian(46.3 / math.sqrt(trees))
    assert accounting.epsilon(event, 1e-5, "rdp") == pytest.approx(6.9222, abs=1e-4)
    event = accounting.gaussian(4.0 / math.sqrt(4 * squared_sensitivity(16, 1, True)))
    assert accounting.epsilon(event, 1e-5, "rdp") == pytest.approx(5.3777, abs=1e-4)
    for noise, most in [(1.13, 19.74), (8.83, 2.04)]:
        event = accounting.gaussian(noise / math.sqrt(11))
        assert accounting.epsilon(event, 1e-6, "rdp") < most


def test_noise_that_two_queries_share():
    """Adaptive clipping, 1905.03871: a round's noise z pays for the sum and for the clipping bits.

    (z, noise of the bits) -> the noise that is left for the sum.
    """
    for (noise, bits), expected in {
        (1.0, 5.0): 1.005038, (0.6, 1.0): 0.628971, (2.0, 2.5): 2.182179
    }.items():  # fmt: skip
        left = (noise**-2 - (2 * bits) ** -2) ** -0.5
        assert left == pytest.approx(expected, abs=1e-6)
        parts = [(accounting.gaussian(left), 1), (accounting.gaussian(2 * bits), 1)]
        whole = accounting.gaussian(noise)
        for accountant in accounting.ACCOUNTANTS:
            found = accounting.epsilon(parts, 1e-5, accountant)
            assert found == pytest.approx(accounting.epsilon(whole, 1e-5, accountant), rel=1e-4)


def test_integer_noise():
    """Exact divergences of small cases lie below the theorems', and close where noise is ample."""
    orders = np.array([2.0, 3.0, 5.0, 8.0])
    numbers = np.arange(-400, 401)

    def divergences(masses: np.ndarray, shift: int) -> np.ndarray:
        moved = np.roll(masses, shift)
        keep = (masses > 1e-250) & (moved > 1e-250)
        logs = [
            order * np.log(moved[keep]) + (1 - order) * np.log(masses[keep]) for order in orders
        ]
        return np.array([np.log(np.exp(log).sum()) for log in logs]) / (orders - 1)

    gauss = np.exp(-(numbers**2) / (2 * 3.0**2))
    gauss /= gauss.sum()
    shares = 4
    summed = gauss
    for _ in range(shares - 1):
        summed = np.convolve(summed, gauss, "same")
    theorem = accounting.discrete_gaussian(3.0, 5.0, 5.0, 1, clients=shares).rdp(orders)
    assert (divergences(summed, 5) <= theorem * (1 + 1e-9)).all()
    np.testing.assert_allclose(theorem, orders * 25 / (2 * shares * 9), rtol=1e-6)

    variance = 30.0
    skellam = special.ive(np.abs(numbers), variance)
    theorem = accounting.skellam(variance, 5.0, 5.0).rdp(orders)
    exact = divergences(skellam, 5)
    assert (exact <= theorem).all()
    assert exact[0] == pytest.approx(theorem[0], rel=0.05)
