"""Events of integer noise, which clients add in shares under secure aggregation.

Norms and noise are those of the integers that are summed: scaled, rotated and rounded.
"""

from __future__ import annotations

import math

import numpy as np

from fljax.core.values import COUNT, NON_NEGATIVE, POSITIVE, Field, Interval, checked
from fljax.privacy.accounting.events import Event
from fljax.privacy.accounting.rdp import between_whole_orders

__all__ = ["discrete_gaussian", "rounded_norms", "skellam"]

_NORM = Field(None, float, POSITIVE)
_STD = Field(None, float, NON_NEGATIVE)
_NUMBER = Field(None, int, COUNT)
_BIAS = Field(None, float, Interval(0, 1, high_open=True))


def rounded_norms(l2_norm: float, dimension: int, bias: float = math.exp(-0.5)) -> tuple:
    """Returns the norms that a vector may have once it is rounded to integers at random.

    Kairouz, Liu and Steinke, 2102.06387, theorem 1: roundings whose norm is larger are drawn again,
    which happens with probability `bias` at most.

    Args:
      l2_norm: Bound of the norm before rounding, in units of the integers' grid.
      dimension: Of the vector, padding included.
      bias: Between 0, where none is drawn again, and 1.

    Returns:
      (l2 norm, l1 norm).

    Example:
      >>> [round(norm, 1) for norm in rounded_norms(100.0, dimension=1024)]
      [101.8, 3259.0]
    """
    norm = checked("l2_norm", l2_norm, _NORM)
    dimension = checked("dimension", dimension, _NUMBER)
    bias = checked("bias", bias, _BIAS)
    l2_bound = norm + math.sqrt(dimension)
    if bias > 0:
        spread = math.sqrt(2 * math.log(1 / bias)) * (norm + math.sqrt(dimension) / 2)
        l2_bound = min(l2_bound, math.sqrt(norm**2 + dimension / 4 + spread))
    # integers are no larger than their squares
    return l2_bound, l2_bound * min(math.sqrt(dimension), l2_bound)


def discrete_gaussian(
    noise: float, l2_norm: float, l1_norm: float, dimension: int, clients: int = 1
) -> Event:
    """Returns a sum of integer vectors to which each client adds discrete Gaussian noise.

    Kairouz, Liu and Steinke, 2102.06387, proposition 14. The noise of one client alone is as good
    as Gaussian noise (Canonne, Kamath and Steinke, 2004.00010); a sum of several is no discrete
    Gaussian, and what it lacks falls exponentially with the variance of one share.

    Args:
      noise: Standard deviation (the parameter sigma) of one client's share.
      l2_norm: Bound of a client's vector of integers.
      l1_norm: The same of its absolute values.
      dimension: Of a vector.
      clients: Whose shares arrive.

    Example:
      >>> from fljax.privacy import accounting
      >>> event = accounting.discrete_gaussian(10.0, 100.0, 3200.0, dimension=1024, clients=100)
      >>> f"{accounting.epsilon(event, delta=1e-5, accountant='rdp'):.3f}"
      '4.729'
    """
    sigma = checked("noise", noise, _STD)
    norm, absolute = checked("l2_norm", l2_norm, _NORM), checked("l1_norm", l1_norm, _NORM)
    dimension = checked("dimension", dimension, _NUMBER)
    clients = checked("clients", clients, _NUMBER)
    name = f"discrete_gaussian({sigma:g}, {norm:g}, clients={clients})"
    if sigma == 0:
        return Event(name, lambda orders: np.full(len(orders), np.inf))
    shares = np.arange(1, clients)
    lack = 10 * float(np.exp(-2 * (math.pi * sigma) ** 2 * shares / (shares + 1)).sum())
    ratio, l1_ratio = (bound / (math.sqrt(clients) * sigma) for bound in (norm, absolute))

    def divergences(orders: np.ndarray) -> np.ndarray:
        return np.minimum.reduce(
            [
                orders / 2 * ratio**2 + lack * dimension,
                orders / 2 * (ratio**2 + 2 * l1_ratio * lack + lack**2 * dimension),
                orders / 2 * (ratio + math.sqrt(dimension) * lack) ** 2,
            ]
        )

    return Event(name, divergences)


def skellam(variance: float, l2_norm: float, l1_norm: float) -> Event:
    """Returns a sum of integer vectors with Skellam noise, the difference of two Poisson numbers.

    Agarwal, Kairouz and Liu, 2110.04995, theorem 3.5. Shares of Skellam noise add up to Skellam
    noise, so that only the variance of their sum counts.

    Args:
      variance: Of the noise of the sum, the shares of all clients that arrive together.
      l2_norm: Bound of a client's vector of integers.
      l1_norm: The same of its absolute values.

    Example:
      >>> from fljax.privacy import accounting
      >>> event = accounting.skellam(100.0**2, l2_norm=100.0, l1_norm=3200.0)
      >>> f"{accounting.epsilon(event, delta=1e-5, accountant='rdp'):.3f}"
      '4.753'
    """
    variance = checked("variance", variance, _STD)
    norm, absolute = checked("l2_norm", l2_norm, _NORM), checked("l1_norm", l1_norm, _NORM)
    name = f"skellam({variance:g}, {norm:g})"
    if variance == 0:
        return Event(name, lambda orders: np.full(len(orders), np.inf))

    def log_moment(order: int) -> float:
        gaussian = order * norm**2 / (2 * variance)
        close = ((2 * order - 1) * norm**2 + 6 * absolute) / (4 * variance**2)
        return (order - 1) * (gaussian + min(close, 3 * absolute / (2 * variance)))

    return Event(name, lambda orders: between_whole_orders(orders, log_moment) / (orders - 1))
