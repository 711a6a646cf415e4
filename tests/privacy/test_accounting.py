"""Accountants: epsilon of runs, against published values and independent formulas."""

from __future__ import annotations

import pytest

from fljax.privacy import accounting

# (q, z, rounds, delta, epsilon) of privacy losses on a grid of 1e-4, by dp_accounting 0.6.0
BY_PLD = [
    (0.1, 1, 200, 539**-1.1, 7.1038),
    (0.2, 2, 200, 539**-1.1, 5.3591),
    (0.1, 1, 200, 715**-1.1, 7.3188),
    (0.1, 1, 100, 1000**-1.1, 5.1523),
    (0.03, 1, 500, 3400**-1.1, 3.5463),
    (256 / 60000, 1.1, 14062, 1e-5, 2.381686),
    (100 / 3400, 1, 1500, 3400**-1.1, 6.350059),
    (100 / 342477, 1, 1500, 1 / 342477, 0.053037),
]


@pytest.mark.parametrize(("rate", "noise", "rounds", "delta", "expected"), BY_PLD)
def test_losses_give_published_epsilons(rate, noise, rounds, delta, expected):
    run = [(accounting.poisson_gaussian(noise, rate), rounds)]
    assert accounting.epsilon(run, delta, "pld") == pytest.approx(expected, abs=1e-3)
