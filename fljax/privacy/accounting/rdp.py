"""Rényi differential privacy: the divergences of one release, order by order.

A divergence is what one release costs at an order, releases add up at each order (Mironov,
1702.07476), and `conversion.py` makes epsilon of the sum.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import scipy

__all__ = [
    "ORDERS",
    "between_whole_orders",
    "gaussian",
    "laplace",
    "log_sum",
    "poisson_gaussian",
    "pure",
    "sampled",
    "without_replacement",
]

# The orders that epsilon is the least over. Fine steps serve large epsilons, large orders small
# ones; they are those of dp_accounting, so that both give the same number.
ORDERS = np.array(
    [1 + tenth / 10 for tenth in range(1, 100)] + list(range(11, 64)) + [128, 256, 512, 1024],
    np.float64,
)
# Of a series at a fractional order: terms at most, and the logarithm of what they may leave out.
_TERMS, _LOG_PRECISION = 1000, 30
# Central moments, which tighten the bound without replacement, are taken up to this order.
_MOST_MOMENTS = 256


def gaussian(orders: np.ndarray, noise_multiplier: float) -> np.ndarray:
    """Returns the divergences of Gaussian noise on a sum of sensitivity 1: alpha / (2 z²)."""
    if noise_multiplier == 0:
        return np.full(len(orders), np.inf)
    return orders / (2 * noise_multiplier**2)


def pure(orders: np.ndarray, epsilon: float) -> np.ndarray:
    """Returns the divergences of randomized response, the worst of all mechanisms of an epsilon."""
    if np.isinf(epsilon):
        return np.full(len(orders), np.inf)
    likely, unlikely = -np.log1p(np.exp(-epsilon)), -epsilon - np.log1p(np.exp(-epsilon))
    moments = np.logaddexp(
        orders * likely + (1 - orders) * unlikely, orders * unlikely + (1 - orders) * likely
    )
    return moments / (orders - 1)


def laplace(orders: np.ndarray, noise_multiplier: float) -> np.ndarray:
    """Returns the divergences of Laplace noise of scale b = z on a sum of sensitivity 1.

    Mironov, 1702.07476, table II.
    """
    if noise_multiplier == 0:
        return np.full(len(orders), np.inf)
    moments = np.logaddexp(
        np.log(orders / (2 * orders - 1)) + (orders - 1) / noise_multiplier,
        np.log((orders - 1) / (2 * orders - 1)) - orders / noise_multiplier,
    )
    return moments / (orders - 1)


def poisson_gaussian(
    orders: np.ndarray, noise_multiplier: float, sampling_rate: float, exact: bool = False
) -> np.ndarray:
    """Returns the divergences of Gaussian noise on the sum of a Poisson sample.

    Mironov, Talwar and Zhang, 1908.10530: the divergence of the mixture (1-q) N(0, z²) + q N(1, z²)
    from N(0, z²), which is the larger of both directions. At whole orders its moment is a finite
    sum. At fractional ones it is a series whose terms change sign; dp_accounting 0.6 adds their
    absolute values, which is a bound, and makes epsilon up to 2 % too large where it is below 10.
    Epsilons of runs are that number, so that it can be compared.

    Args:
      orders: float64[n], above 1.
      noise_multiplier: z, above 0.
      sampling_rate: q.
      exact: Whether fractional orders are integrated, as Opacus' signed series does in effect.
    """
    if sampling_rate == 0:
        return np.zeros(len(orders))
    if sampling_rate == 1 or noise_multiplier == 0:
        return gaussian(orders, noise_multiplier)
    whole = orders == np.round(orders)
    at_fractions = _integrated_log_moment if exact else _bound_of_log_moment
    log_moments = [
        (_whole_log_moment if is_whole else at_fractions)(order, noise_multiplier, sampling_rate)
        for order, is_whole in zip(orders, whole, strict=True)
    ]
    return np.maximum(log_moments, 0) / (orders - 1)


def log_sum(logs: np.ndarray) -> float:
    """Returns log(sum(exp(logs))); on short arrays several times as fast as SciPy's."""
    largest = logs.max()
    return largest + np.log(np.exp(logs - largest).sum()) if np.isfinite(largest) else largest


@functools.lru_cache(maxsize=2**14)  # a study asks for every trial
def _whole_log_moment(order: float, noise_multiplier: float, sampling_rate: float) -> float:
    """Returns log E[(density ratio)^order] under N(0, z²), expanded by the binomial theorem."""
    terms = np.arange(order + 1)
    return log_sum(
        _log_binomial(order, terms)
        + scipy.special.xlogy(terms, sampling_rate)
        + scipy.special.xlog1py(order - terms, -sampling_rate)
        + terms * (terms - 1) / (2 * noise_multiplier**2)
    )


@functools.lru_cache(maxsize=2**14)
def _bound_of_log_moment(order: float, noise_multiplier: float, sampling_rate: float) -> float:
    """Returns the logarithm of the series' absolute values; infinity where they converge slowly.

    Left and right of the outcome where both parts of the mixture are equally likely, its power is
    expanded by the binomial series; each term is a moment of a normal distribution cut there.
    """
    variance, terms = noise_multiplier**2, np.arange(_TERMS)
    middle = variance * (np.log1p(-sampling_rate) - np.log(sampling_rate)) + 0.5
    rest = order - terms
    binomial = _log_binomial(order, terms)
    common, own = np.log1p(-sampling_rate), np.log(sampling_rate)
    left = binomial + terms * own + rest * common + terms * (terms - 1) / (2 * variance)
    left += scipy.special.log_ndtr((middle - terms) / noise_multiplier)
    right = binomial + rest * own + terms * common + rest * (rest - 1) / (2 * variance)
    right += scipy.special.log_ndtr((rest - middle) / noise_multiplier)
    total = np.logaddexp.accumulate(np.logaddexp(left, right))
    falling = (np.diff(left) < 0) & (np.diff(right) < 0)
    ended = falling & (np.maximum(left, right) < total - _LOG_PRECISION)[1:]
    return total[1:][np.argmax(ended)] if ended.any() else np.inf


def _integrated_log_moment(order: float, noise_multiplier: float, sampling_rate: float) -> float:
    """Returns the logarithm of the moment at any order, by the trapezoidal rule.

    The density ratio is analytic up to pi z² from the real line, so a step of z²/2 leaves an error
    of exp(-4 pi²); the Gaussian asks for steps of z/4.
    """
    step = min(noise_multiplier / 4, noise_multiplier**2 / 2)
    reach = 12 * noise_multiplier
    points = np.arange(-reach, order + reach, step)
    log_ratio = np.logaddexp(
        np.log1p(-sampling_rate),
        np.log(sampling_rate) + (2 * points - 1) / (2 * noise_multiplier**2),
    )
    return log_sum(order * log_ratio + _log_weights(points, noise_multiplier))


def _log_weights(points: np.ndarray, noise_multiplier: float) -> np.ndarray:
    """Returns the logarithms of N(0, z²) times the step, on an even grid of points."""
    log_density = -((points / noise_multiplier) ** 2) / 2 - np.log(2 * np.pi) / 2
    return log_density + np.log((points[1] - points[0]) / noise_multiplier)


def sampled(
    orders: np.ndarray, divergences: Callable[[np.ndarray], np.ndarray], sampling_rate: float
) -> np.ndarray:
    """Returns the divergences of any mechanism on a Poisson sample.

    Zhu and Wang, ICML 2019, theorem 5, which holds for every mechanism at whole orders; between
    them the logarithm of the moment is convex, so a chord bounds it.

    Args:
      orders: float64[n], above 1.
      divergences: orders -> the mechanism's divergences on the whole data.
      sampling_rate: Probability of each record.
    """
    if sampling_rate == 0:
        return np.zeros(len(orders))
    if sampling_rate == 1:
        return divergences(orders)

    def log_moment(order: int) -> float:
        terms = np.arange(2, order + 1)
        own = divergences(terms.astype(np.float64))
        logs = (
            _log_binomial(order, terms)
            + scipy.special.xlogy(terms, sampling_rate)
            + scipy.special.xlog1py(order - terms, -sampling_rate)
            + (terms - 1) * own
            + np.where(terms > 2, np.log(3), 0)
        )
        first = (order - 1) * np.log1p(-sampling_rate) + np.log1p(sampling_rate * (order - 1))
        return log_sum(np.append(logs, first))

    return between_whole_orders(orders, log_moment) / (orders - 1)


def without_replacement(
    orders: np.ndarray, noise_multiplier: float, sampling_rate: float
) -> np.ndarray:
    """Returns the divergences of Gaussian noise on a sample of fixed size, one record replaced.

    Wang, Balle and Kasiviswanathan, 1808.00087, theorem 27. Replacing a record moves the sum by
    twice the clip norm, so the noise over the sensitivity is half the noise multiplier.

    Args:
      orders: float64[n], above 1.
      noise_multiplier: Standard deviation of the noise over the bound of one contribution.
      sampling_rate: Size of a sample over that of the population.
    """
    over_sensitivity = noise_multiplier / 2
    if sampling_rate == 1 or noise_multiplier == 0:
        return gaussian(orders, over_sensitivity)

    terms = np.arange(2, int(np.ceil(orders.max())) + 1)
    bounds = np.log(2) + terms * (terms - 1) / (2 * over_sensitivity**2)
    central = _log_central_moments(over_sensitivity)
    inside = terms[terms <= _MOST_MOMENTS]
    pairs = central[inside // 2] + central[(inside + 1) // 2]
    bounds[: len(inside)] = np.minimum(bounds[: len(inside)], np.log(4) + pairs / 2)

    def log_moment(order: int) -> float:
        some = terms[: order - 1]
        logs = _log_binomial(order, some) + some * np.log(sampling_rate) + bounds[: order - 1]
        return log_sum(np.append(logs, 0.0))

    return between_whole_orders(orders, log_moment) / (orders - 1)


def _log_central_moments(noise_multiplier: float) -> np.ndarray:
    """Returns log E[(r - 1)^(2j)] under N(0, z²), r = N(1, z²) / N(0, z²), for j = 0, 1, 2, ..."""
    step, reach = min(noise_multiplier / 4, noise_multiplier**2), 12 * noise_multiplier
    points = np.arange(-reach, _MOST_MOMENTS + reach, step)
    exponents = (2 * points - 1) / (2 * noise_multiplier**2)
    with np.errstate(divide="ignore", over="ignore"):
        # log |e^x - 1|, where e^x may overflow
        log_distance = np.maximum(exponents, 0) + np.log(-np.expm1(-np.abs(exponents)))
    weights = _log_weights(points, noise_multiplier)
    powers = 2 * np.arange(1, _MOST_MOMENTS // 2 + 1)
    moments = [log_sum(power * log_distance + weights) for power in powers]
    return np.array([0.0, *moments])


def _log_binomial(order: float, terms: np.ndarray) -> np.ndarray:
    return (
        scipy.special.gammaln(order + 1)
        - scipy.special.gammaln(terms + 1)
        - scipy.special.gammaln(order - terms + 1)
    )


def between_whole_orders(orders: np.ndarray, log_moment: Callable[[int], float]) -> np.ndarray:
    """Returns bounds of log moments by chords: they are convex in the order, and 0 at order 1.

    Args:
      orders: float64[n], above 1.
      log_moment: Whole order -> (order - 1) times the divergence.
    """
    low, high = np.floor(orders).astype(int), np.ceil(orders).astype(int)
    whole = {order: log_moment(order) for order in {*low.tolist(), *high.tolist()} if order > 1}
    whole[1] = 0.0
    at_low = np.array([whole[order] for order in low.tolist()])
    at_high = np.array([whole[order] for order in high.tolist()])
    return np.where(low == high, at_low, at_low + (orders - low) * (at_high - at_low))
