"""Conversions between guarantees: of Rényi divergences, of zCDP, of Gaussian noise, of epsilon."""

from __future__ import annotations

import math

import numpy as np
import scipy

from fljax.privacy.accounting.rdp import ORDERS

__all__ = ["delta_of_gaussian", "epsilon_of_gaussian", "epsilon_of_rdp", "noise_of_zcdp"]

# Below this order the conversion divides by almost nothing.
_LEAST_ORDER = 1.01


def epsilon_of_rdp(
    divergences: np.ndarray, delta: float, orders: np.ndarray = ORDERS
) -> tuple[float, float]:
    """Returns the least epsilon that Rényi divergences promise, and the order that gives it.

    Canonne, Kamath and Steinke, 2004.00010, proposition 12; and where the divergences are so small
    that their total variation is below delta, epsilon is 0.

    Args:
      divergences: float64[n], of all releases together.
      delta: Probability, above 0.
      orders: float64[n], each above 1.

    Example:
      >>> epsilon, order = epsilon_of_rdp(ORDERS / 2, 1e-5)  # one release of noise 1
      >>> round(epsilon, 4), float(order)
      (4.7285, 5.4)
    """
    with np.errstate(invalid="ignore"):
        epsilons = divergences + np.log1p(-1 / orders) - np.log(delta * orders) / (orders - 1)
    epsilons = np.where(orders > _LEAST_ORDER, epsilons, np.inf)
    epsilons = np.where(delta**2 + np.expm1(-divergences) > 0, 0.0, epsilons)
    best = int(np.argmin(epsilons))
    return max(0.0, float(epsilons[best])), float(orders[best])


def delta_of_gaussian(noise_multiplier: float, epsilon: float) -> float:
    """Returns the exact delta of one release with Gaussian noise, by Balle and Wang, 1805.06530.

    Example:
      >>> f"{delta_of_gaussian(1.0, 1.0):.4f}"
      '0.1269'
    """
    if noise_multiplier == 0:
        return 1.0
    half, share = 1 / (2 * noise_multiplier), epsilon * noise_multiplier
    inside = scipy.special.log_ndtr(half - share)
    outside = epsilon + scipy.special.log_ndtr(-half - share)
    return math.exp(inside) * -math.expm1(min(outside - inside, 0.0))


def epsilon_of_gaussian(noise_multiplier: float, delta: float) -> float:
    """Returns the exact epsilon of one release with Gaussian noise on a sum of sensitivity 1.

    Example:
      >>> f"{epsilon_of_gaussian(1.0, 1e-5):.4f}"
      '4.3772'
    """
    if noise_multiplier == 0:
        return math.inf
    if delta_of_gaussian(noise_multiplier, 0.0) <= delta:
        return 0.0
    high = 1.0
    while delta_of_gaussian(noise_multiplier, high) > delta:
        high *= 2
    return scipy.optimize.brentq(
        lambda epsilon: delta_of_gaussian(noise_multiplier, epsilon) - delta, 0.0, high, xtol=1e-12
    )


def noise_of_zcdp(rho: float) -> float:
    """Returns the noise multiplier of the Gaussian release that is rho-zCDP: 1 / sqrt(2 rho).

    Example:
      >>> noise_of_zcdp(0.5)
      1.0
    """
    return 1 / math.sqrt(2 * rho) if rho else math.inf
