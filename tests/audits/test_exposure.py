"""Exposures are those of ranks, and of fitted tails however far out a secret lies."""

import math

import numpy as np
import pytest
import scipy

from fljax.audits.bounds.exposure import (
    SkewNormal,
    exposure,
    extrapolated_exposure,
    fitted_losses,
)


def test_exposures_are_those_of_a_loop_over_ranks():
    losses = np.random.default_rng(0).permutation(1000).astype(float)
    losses[3] = np.inf
    order = sorted(losses)
    expected = [math.log2(1000) - math.log2(order.index(losses[n]) + 1) for n in (0, 3, 999)]
    np.testing.assert_allclose(exposure(losses, [0, 3, 999]), expected, atol=1e-12)
    assert exposure(losses, int(losses.argmin())) == math.log2(1000)
    assert exposure(losses, 3) == 0


def test_what_nobody_tells_apart_is_not_exposed():
    assert exposure(np.zeros(64), [0, 63]).tolist() == [0, 0]
    assert exposure([1.0, 0.5, 0.5, 0.5], [1]).tolist() == [math.log2(4 / 3)]
    assert exposure([7.0], [0]).tolist() == [0]
    assert exposure([7.0], []).shape == (0,)


def normal_bits(z):
    return -scipy.special.log_ndtr(z) / math.log(2)


@pytest.mark.parametrize("z", [3.0, 0.0, -1.0, -6.0, -30.0, -90.0])
def test_tails_of_normal_losses_are_exact(z):
    (found,) = extrapolated_exposure([200 + 2 * z], SkewNormal(200.0, 2.0, 0.0, 1.0))
    assert found == pytest.approx(normal_bits(z), rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("shape", [-8.0, -0.5, 0.7, 8.0])
def test_tails_of_skewed_losses_are_the_integral(shape):
    fit = SkewNormal(50.0, 3.0, shape, 1.0)
    for z in (-4.0, -0.5, 1.0):
        t = np.linspace(-40, z, 200_001)
        density = 2 * np.exp(-(t**2) / 2) / math.sqrt(2 * math.pi) * scipy.special.ndtr(shape * t)
        mass = (density.sum() - (density[0] + density[-1]) / 2) * (t[1] - t[0])
        (found,) = extrapolated_exposure([50 + 3 * z], fit)
        assert found == pytest.approx(-math.log2(mass), rel=1e-5, abs=1e-6)
    # a half-normal tail: what is below is nothing but the mirror image of the upper tail
    mirrored = extrapolated_exposure([20.0], SkewNormal(50.0, 3.0, -200.0, 1.0))
    assert mirrored == pytest.approx(normal_bits(-10.0) - 1, rel=1e-6)


def test_no_loss_is_below_the_least():
    fit = SkewNormal(1.0, 1.0, 0.0, 1.0)
    whole, some = (extrapolated_exposure([0.5], fit, least)[0] for least in (-np.inf, 0.0))
    mass = scipy.special.ndtr(-0.5) - scipy.special.ndtr(-1.0)
    assert whole == pytest.approx(normal_bits(-0.5), rel=1e-6)
    assert some == pytest.approx(-math.log2(mass), rel=1e-5)
    near = extrapolated_exposure([1e-9, 0.0, -1.0, np.inf], fit)
    assert near[0] > 29 and near[1:3].tolist() == [np.inf, np.inf]
    assert near[3] == pytest.approx(-math.log2(scipy.special.ndtr(1.0)), rel=1e-6)


def test_a_fit_extrapolates_what_ranks_show():
    random = np.random.default_rng(2)
    shape = 3 / math.sqrt(10)
    first, second = random.standard_normal((2, 20_000))
    losses = 40 + 5 * (shape * np.abs(first) + math.sqrt(1 - shape**2) * second)
    fit = fitted_losses(losses[:2000])
    assert fit.p_value > 0.1
    assert (fit.location, fit.scale, fit.shape) == pytest.approx((40, 5, 3), rel=0.15)
    order = np.argsort(losses)
    for rank in (10, 1000, 15_000):
        (found,) = extrapolated_exposure(losses[order[rank - 1]], fit)
        assert found == pytest.approx(math.log2(20_000 / rank), abs=1.0)
    apart = np.concatenate([losses[:300], losses[:300] + 100])
    assert fitted_losses(apart).p_value < 0.1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: exposure([1.0, math.nan], [0]), "losses: 1 of 2 losses are NaN"),
        (lambda: exposure([1.0, 2.0], [2]), "must be numbers of candidates, from 0 to 1"),
        (lambda: exposure([1.0, 2.0], [-1]), "must be numbers of candidates"),
        (lambda: exposure([1.0, 2.0], [0.5]), "must be numbers of candidates"),
        (lambda: fitted_losses([1.0, 2.0]), "2 different values of 2 are too few"),
        (lambda: fitted_losses([1.0, 2.0, 3.0, math.inf]), "or some are infinite"),
        (
            lambda: extrapolated_exposure([math.nan], SkewNormal(1.0, 1.0, 0.0, 1.0)),
            "secrets: 1 of 1 losses are NaN",
        ),
    ],
)
def test_wrong_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
