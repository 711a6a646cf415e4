"""Privacy loss distributions: how likely each privacy loss of a run is, and epsilon from that.

The loss of an outcome is the logarithm of how much more likely it is on one data set than on its
neighbour. Losses of releases add up, so their distributions are convolved. A distribution is put
on an even grid by connecting the dots (Doroshenko et al., 2207.04380): what falls between two grid
points is divided among them so that its probability stays the same on both data sets, which can
only enlarge epsilon. What is cut off above counts as an infinite loss, so every epsilon here is an
upper bound.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import scipy

from fljax.privacy.accounting.rdp import log_sum

__all__ = ["LossDistribution", "Pair", "compose", "discretize", "epsilon_of_losses", "grid_step"]

# Probability that is cut off above, in all.
TAIL = 1e-15
# Probability that a release's share in a composition may lose to rounding.
_ROUNDING = 2.0**-53
# Grid points of a release, and of a composition, at most about.
_MOST_POINTS = 2**18
_MOST_COMPOSED = 2**20
# Between losses that may as well be one.
_LEAST_STEP = 1e-12
# Grid steps in a standard deviation of the loss of one release.
_STEPS_PER_DEVIATION = 128


class Pair(NamedTuple):
    """Two distributions of outcomes, those of neighbouring data sets, at their most different.

    Attributes:
      masses: float64[n] increasing losses -> (float64[n + 1], float64[n + 1]), how much of the
        first and of the second distribution has a loss up to the first of them, between each and
        the next (the larger one included), and above the last.
      bounds: probability -> (low, high), losses that the first distribution has less than this
        below, and less than this above.
      largest: No loss is larger; then epsilon is no larger, whatever delta.
    """

    masses: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
    bounds: Callable[[float], tuple[float, float]]
    largest: float = math.inf


class LossDistribution(NamedTuple):
    """Probabilities of privacy losses on an even grid.

    Attributes:
      step: Between two losses of the grid.
      lowest: Number of the first grid point; its loss is `lowest * step`.
      probabilities: float64[n], of the grid points.
      infinite: Probability of an infinite loss.
    """

    step: float
    lowest: int
    probabilities: np.ndarray
    infinite: float


def gaussian_pairs(noise_multiplier: float, sampling_rate: float = 1.0) -> tuple[Pair, ...]:
    """Returns the pairs of Gaussian noise on a Poisson sample, of which a record leaves or joins.

    Zhu, Dong and Wang, 2106.08567: (1-q) N(0, z²) + q N(1, z²) against N(0, z²), and the reverse.
    """
    rate, variance = sampling_rate, noise_multiplier**2
    log_absent = math.log1p(-rate) if rate < 1 else -math.inf

    def loss(outcome: float) -> float:
        return float(np.logaddexp(log_absent, math.log(rate) + (outcome - 0.5) / variance))

    def outcomes(losses: np.ndarray) -> np.ndarray:
        """Returns where the loss of a removal, which rises with the outcome, has these values."""
        with np.errstate(divide="ignore", over="ignore"):
            logs = losses + np.log1p(np.maximum(-np.exp(log_absent - losses), -1.0))
        return variance * (logs - math.log(rate)) + 0.5

    def without(edges: np.ndarray) -> np.ndarray:
        return _between(edges / noise_multiplier)

    def with_record(edges: np.ndarray) -> np.ndarray:
        present = _between((edges - 1) / noise_multiplier)
        return (1 - rate) * without(edges) + rate * present

    def removed(losses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        edges = outcomes(losses)
        return with_record(edges), without(edges)

    def added(losses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        edges = outcomes(-losses[::-1])
        return without(edges)[::-1], with_record(edges)[::-1]

    def reach(tail: float) -> float:
        return noise_multiplier * math.sqrt(2 * math.log(2 / tail))

    removal = Pair(removed, lambda tail: (loss(-reach(tail)), loss(1 + reach(tail))))
    addition = Pair(added, lambda tail: (-loss(reach(tail)), -loss(-reach(tail))), -log_absent)
    return (removal,) if rate == 1 else (removal, addition)


def laplace_pairs(noise_multiplier: float) -> tuple[Pair, ...]:
    """Returns the pair of Laplace noise of scale z on a sum of sensitivity 1; it is symmetric."""
    most = 1 / noise_multiplier

    def masses(losses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        # the loss (|x| - |x - 1|) / z is 2x/z - 1/z between 0 and 1, and constant outside
        inside = np.clip(losses, -most, most)
        own = np.where(losses < most, np.exp((inside - most) / 2) / 2, 1.0)
        other = np.where(losses < most, 1 - np.exp(-(inside + most) / 2) / 2, 1.0)
        own, other = (np.where(losses < -most, 0.0, share) for share in (own, other))
        return np.diff(own, prepend=0.0, append=1.0), np.diff(other, prepend=0.0, append=1.0)

    return (Pair(masses, lambda tail: (-most, most), most),)


def pure_pairs(epsilon: float) -> tuple[Pair, ...]:
    """Returns the pair of randomized response, the worst of all mechanisms of an epsilon."""
    shares = scipy.special.expit([-epsilon, epsilon])

    def masses(losses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        cells = np.searchsorted(losses, [-epsilon, epsilon])
        own, other = (np.bincount(cells, part, len(losses) + 1) for part in (shares, shares[::-1]))
        return own, other

    return (Pair(masses, lambda tail: (-epsilon, epsilon), epsilon),)


def _between(edges: np.ndarray) -> np.ndarray:
    """Returns what of a standard normal lies below, between and above edges, tails as well."""
    edges = np.concatenate([[-np.inf], edges, [np.inf]])
    low, high = edges[:-1], edges[1:]
    flipped = low > 0
    low, high = np.where(flipped, -high, low), np.where(flipped, -low, high)
    return np.maximum(scipy.special.ndtr(high) - scipy.special.ndtr(low), 0.0)


def grid_step(parts: Sequence[tuple[Pair, int]]) -> float:
    """Returns a grid step that is fine beside the losses of all releases.

    Connecting the dots adds at most step²/4 to the variance of a release's loss.
    """
    times = sum(count for _, count in parts)
    variance, widest = 0.0, 0.0
    for pair, count in parts:
        low, high = pair.bounds(TAIL / times)
        widest = max(widest, high - low)
        coarse = discretize(pair, max((high - low) / 2**14, _LEAST_STEP), TAIL / times)
        losses = coarse.step * (coarse.lowest + np.arange(len(coarse.probabilities)))
        variance += count / times * _variance(losses, coarse.probabilities)
    # a composition is some 20 standard deviations wide
    steps = min(_STEPS_PER_DEVIATION, _MOST_COMPOSED / (20 * math.sqrt(times)))
    return max(math.sqrt(variance) / steps, widest / _MOST_POINTS, _LEAST_STEP)


def discretize(pair: Pair, step: float, tail: float = TAIL) -> LossDistribution:
    """Puts the losses of a release on a grid by connecting the dots.

    Args:
      pair: The release on two neighbouring data sets.
      step: Of the grid.
      tail: Probability that may be cut off on either side.
    """
    low, high = pair.bounds(tail)
    lowest, highest = math.floor(low / step), math.ceil(high / step)
    edges = step * np.arange(lowest, highest + 1)
    own, other = pair.masses(edges)
    # own mass m and the neighbour's mass n in a cell up to loss l: `upper` of m goes to l, the
    # rest to l - step, and both data sets keep their mass
    with np.errstate(over="ignore", invalid="ignore"):
        surplus = own[1:-1] - other[1:-1] * np.exp(edges[:-1])
    surplus = np.where(np.isfinite(surplus), surplus, own[1:-1])
    upper = np.clip(surplus / -math.expm1(-step), 0.0, own[1:-1])
    probabilities = np.zeros(len(edges))
    probabilities[1:] += upper
    probabilities[:-1] += own[1:-1] - upper
    probabilities[0] += own[0]
    return LossDistribution(step, lowest, probabilities, float(own[-1]))


def compose(parts: Sequence[tuple[Pair, int]]) -> LossDistribution:
    """Returns the losses of a run.

    Args:
      parts: (release, how often).
    """
    step, tail = grid_step(parts), TAIL / sum(times for _, times in parts)
    while True:
        losses = [(discretize(pair, step, tail), times) for pair, times in parts]
        if any(release.infinite >= 1 for release, _ in losses):
            return LossDistribution(step, 0, np.zeros(1), 1.0)
        low, high = _window(losses)
        if high - low < _MOST_COMPOSED:
            return _convolved(losses, low, high)
        step *= 1.5 * (high - low) / _MOST_COMPOSED


def _convolved(
    parts: Sequence[tuple[LossDistribution, int]], low: int, high: int
) -> LossDistribution:
    """Convolves the losses of releases, each so many times, between two grid points."""
    size = scipy.fft.next_fast_len(high - low + 1, real=True)
    spectrum, shift = np.ones(size // 2 + 1, complex), 0
    for losses, times in parts:
        places = np.arange(len(losses.probabilities)) % size
        folded = np.bincount(places, losses.probabilities, size)
        spectrum *= scipy.fft.rfft(folded) ** times
        shift += losses.lowest * times
    folded = np.maximum(scipy.fft.irfft(spectrum, size), 0.0)
    # entry i of the transform is every grid point that is i + shift modulo the size
    probabilities = np.roll(folded, shift - low)
    survives = sum(times * math.log1p(-losses.infinite) for losses, times in parts)
    # what lies above the window, and more than transforms of powers lose to rounding
    lost = TAIL + sum(times for _, times in parts) * _ROUNDING
    return LossDistribution(parts[0][0].step, low, probabilities, -math.expm1(survives) + lost)


def _window(parts: Sequence[tuple[LossDistribution, int]]) -> tuple[int, int]:
    """Returns grid points that the sum of losses leaves with a probability below the tail's.

    By Chernoff's bound. Exponentials are convex, so that what lies between two of fewer points may
    be divided among them, with the same mean.
    """
    few = [(*_on_fewer_points(losses), times) for losses, times in parts]
    lowest = sum(times * places[0] for places, _, times in few)
    highest = sum(times * places[-1] for places, _, times in few)
    spread = max(math.sqrt(sum(times * _variance(*points) for *points, times in few)), 1.0)
    widest = max(places[-1] - places[0] for places, *_ in few)
    with np.errstate(divide="ignore"):
        few = [(places, np.log(masses), times) for places, masses, times in few]

    def log_moment(tilt: float) -> float:
        return sum(times * log_sum(logs + tilt * places) for places, logs, times in few)

    for tilt in np.geomspace(min(0.25 / spread, 1 / widest), max(40 / spread, 40 / widest), 60):
        above, below = log_moment(tilt), log_moment(-tilt)
        highest = min(highest, math.ceil((above - math.log(TAIL)) / tilt))
        lowest = max(lowest, math.floor((math.log(TAIL) - below) / tilt))
    return int(lowest), int(max(highest, lowest))


def _on_fewer_points(losses: LossDistribution, most: int = 4096) -> tuple[np.ndarray, np.ndarray]:
    """Returns (places, masses) of some grid points, to which those between them are moved."""
    count = len(losses.probabilities)
    width = -(-count // most)
    blocks = -(-count // width)
    masses = np.zeros(blocks * width)
    masses[:count] = losses.probabilities
    masses = masses.reshape(blocks, width)
    total, on_end = masses.sum(1), (masses * np.arange(width)).sum(1) / width
    moved = np.append(total - on_end, 0.0) + np.append(0.0, on_end)
    return losses.lowest + width * np.arange(blocks + 1), moved


def _variance(places: np.ndarray, masses: np.ndarray) -> float:
    return _product(masses, (places - _product(masses, places)) ** 2)


def _product(first: np.ndarray, second: np.ndarray) -> float:
    """Returns an inner product; the threads of a BLAS would wait busily for the next short one."""
    return np.sum(first * second)


def epsilon_of_losses(losses: LossDistribution, delta: float) -> float:
    """Returns the least epsilon of a loss distribution; infinity where there is none.

    delta(epsilon) = P(infinite) + sum over losses l above epsilon of p(l) (1 - exp(epsilon - l)).
    """
    if losses.infinite > delta:
        return math.inf
    first = max(0, 1 - losses.lowest)  # losses up to 0 never count
    lowest, probabilities = losses.lowest + first, losses.probabilities[first:]
    if not len(probabilities):
        return 0.0
    lost = -np.expm1(-losses.step * np.arange(len(probabilities)))

    def excess(place: int) -> float:
        """Returns delta at a grid point, less what is allowed."""
        return losses.infinite - delta + _product(probabilities[place:], lost[: len(lost) - place])

    low, high = 0, len(probabilities) - 1
    if excess(high) > 0:
        return math.inf
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if excess(middle) <= 0 else (middle + 1, high)
    # from this grid point down to the one before, delta is linear in exp(epsilon)
    rest = probabilities[low:]
    above = losses.infinite - delta + rest.sum()
    decayed = _product(rest, np.exp(-losses.step * np.arange(len(rest))))
    if above <= 0:
        return 0.0
    return max(0.0, losses.step * (lowest + low) + math.log(above / decayed))
