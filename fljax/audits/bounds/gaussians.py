"""The exact epsilon between two Gaussian distributions of a number.

Of P and Q the least delta at some epsilon is P(L > epsilon) - e^epsilon Q(L > epsilon), where L =
log p / q is the privacy loss (Steinke 2022, arXiv:2210.00597, proposition 7); of two Gaussians L is
a quadratic function, so that it is above epsilon on one side of a number, between two, or outside.
"""

from __future__ import annotations

import math

import numpy as np
import scipy

from fljax.core.values import Field, Interval, checked

__all__ = ["delta_between_gaussians", "epsilon_between_gaussians", "epsilon_of_gaussian_privacy"]

_DELTA = Field(None, float, Interval(0, 1, low_open=True, high_open=True))


def epsilon_between_gaussians(
    first: tuple[float, float], second: tuple[float, float], delta: float
) -> float:
    """Returns the least epsilon at which neither Gaussian tells itself from the other.

    Args:
      first, second: (mean, standard deviation) of each.
      delta: Above 0 and below 1.

    Returns:
      The larger epsilon of both directions; infinity where one has no spread and they differ.

    Raises:
      ValueError: For a delta that is none, or numbers that are no mean and deviation.

    Example:
      >>> round(epsilon_between_gaussians((0.0, 1.0), (1.0, 1.0), 1e-5), 4)
      4.3772
    """
    delta = checked("delta", delta, _DELTA)
    for mean, deviation in (first, second):
        if not (math.isfinite(mean) and math.isfinite(deviation) and deviation >= 0):
            raise ValueError(
                f"mean = {mean:g} and standard deviation = {deviation:g} are those of no Gaussian. "
                "Give finite numbers, of which the second is at least 0."
            )
    if first == second:
        return 0.0
    if first[1] == 0 or second[1] == 0:
        return math.inf

    def excess(epsilon: float) -> float:
        return delta_between_gaussians(first, second, epsilon) - delta

    if excess(0.0) <= 0:
        return 0.0
    high = 1.0
    while excess(high) > 0:
        high *= 2
    return scipy.optimize.brentq(excess, 0.0, high, xtol=1e-12)


def delta_between_gaussians(
    first: tuple[float, float], second: tuple[float, float], epsilon: float
) -> float:
    """Returns the larger delta of both directions between two Gaussians that have some spread.

    Example:
      >>> round(delta_between_gaussians((0.0, 1.0), (1.0, 1.0), 1.0), 4)
      0.1269
    """
    return max(_one_way(first, second, epsilon), _one_way(second, first, epsilon))


def epsilon_of_gaussian_privacy(mu: float, delta: float) -> float:
    """Returns the epsilon of mu-Gaussian differential privacy (Dong et al. 2019, 1905.02383).

    Example:
      >>> round(epsilon_of_gaussian_privacy(0.5, 1e-5), 4)
      1.9931
    """
    return epsilon_between_gaussians((0.0, 1.0), (mu, 1.0), delta)


def _one_way(first: tuple[float, float], second: tuple[float, float], epsilon: float) -> float:
    """Returns P(L > epsilon) - e^epsilon Q(L > epsilon) for P the first and Q the second."""
    # in units in which Q is the standard normal distribution
    mean, deviation = (first[0] - second[0]) / second[1], first[1] / second[1]
    square = 0.5 * (1 - deviation**-2)
    slope = mean / deviation**2
    rest = -0.5 * (mean / deviation) ** 2 - math.log(deviation) - epsilon
    found = slope**2 - 4 * square * rest
    if found <= 0:  # L is on one side of epsilon everywhere, and above it nowhere
        return 0.0
    half = -0.5 * (slope + math.copysign(math.sqrt(found), slope))
    with np.errstate(divide="ignore"):
        ends = sorted([float(np.divide(half, square)), rest / half])
    outside = square >= 0
    own = _log_mass([(end - mean) / deviation for end in ends], outside)
    other = _log_mass(ends, outside)
    return math.exp(own) * -math.expm1(min(epsilon + other - own, 0.0)) if own > -math.inf else 0.0


def _log_mass(ends: list[float], outside: bool) -> float:
    """Returns the logarithm of how much of a standard normal lies outside two ends, or between."""
    low, high = ends
    if outside:
        return float(np.logaddexp(scipy.special.log_ndtr(low), scipy.special.log_ndtr(-high)))
    if low > 0:  # where the other tail has more digits
        low, high = -high, -low
    above, below = scipy.special.log_ndtr([high, low])
    return float(above + np.log1p(-np.exp(below - above))) if above > below else -math.inf
