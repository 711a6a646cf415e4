"""Integer noise, drawn exactly from tables: discrete Gaussian and Skellam numbers.

A number's magnitude is where a random word of 63 bits falls among the cumulative probabilities,
which are computed to 60 digits and rounded down to multiples of 2^-63. So what is drawn differs
from the distribution it is named for by a total variation of at most (entries of the table) 2^-63.
"""

from __future__ import annotations

import decimal
import functools
from collections.abc import Iterator
from decimal import Decimal
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["NoiseTable", "discrete_gaussian_table", "draw", "skellam_table"]

_BITS = 63
# Standard deviations, and numbers beside them, beyond which tables end by all means.
_DEVIATIONS, _MORE = 16, 60
_DIGITS = decimal.Context(prec=60)


class NoiseTable(NamedTuple):
    """Probabilities of the magnitude of a symmetric integer.

    Attributes:
      high: uint32[n], the upper 32 bits of 2^63 P(|X| <= j), j = 0 ... n - 1.
      low: uint32[n], the lower 31 bits.

    Example:
      >>> from fljax.privacy.integer_noise import skellam_table
      >>> skellam_table(100).largest
      93
    """

    high: np.ndarray
    low: np.ndarray

    @property
    def largest(self) -> int:
        """The largest magnitude that can be drawn."""
        return len(self.high)

    @property
    def distance(self) -> float:
        """Bound of the total variation distance from the distribution of that name."""
        return (self.largest + 1) * 2.0**-_BITS


@functools.cache
def discrete_gaussian_table(std: int) -> NoiseTable:
    """Returns the table of numbers j whose probabilities are as exp(-j^2 / (2 std^2)).

    Canonne, Kamath and Steinke, 2004.00010.

    Args:
      std: The parameter sigma, 1 at least.

    Example:
      >>> from fljax.privacy.integer_noise import discrete_gaussian_table
      >>> discrete_gaussian_table(10).largest
      91
    """

    def weights() -> Iterator[Decimal]:
        weight, square = Decimal(1), Decimal(std) ** 2
        ratio, shrinking = (-1 / (2 * square)).exp(), (-1 / square).exp()
        for _ in range(_DEVIATIONS * std + _MORE):
            yield weight
            weight, ratio = weight * ratio, ratio * shrinking

    return _table(weights())


@functools.cache
def skellam_table(variance: int) -> NoiseTable:
    """Returns the table of the difference of two Poisson numbers of mean variance / 2.

    The probability of j is as the modified Bessel function I_j(variance), whose recurrence in j is
    stable downwards (Miller).

    Args:
      variance: Of the difference, 1 at least.

    Example:
      >>> from fljax.privacy.integer_noise import skellam_table
      >>> f"{skellam_table(100).high[0] / 2**32:.6f}"  # the probability of 0
      '0.039944'
    """

    def weights() -> Iterator[Decimal]:
        beyond, last = Decimal(0), Decimal(1)
        found = []
        for order in range(int(_DEVIATIONS * variance**0.5) + _MORE, 0, -1):
            found.append(last)
            beyond, last = last, beyond + 2 * order * last / variance
        return reversed([*found, last])

    with decimal.localcontext(_DIGITS):
        return _table(weights())


def _table(terms: Iterator[Decimal]) -> NoiseTable:
    with decimal.localcontext(_DIGITS):
        weights = list(terms)
        total = weights[0] + 2 * sum(weights[1:])
        cumulative, thresholds = Decimal(0), []
        for magnitude, weight in enumerate(weights):
            cumulative += weight if magnitude == 0 else 2 * weight
            threshold = int(cumulative / total * 2**_BITS)
            if threshold >= 2**_BITS - 1:
                break
            thresholds.append(threshold)
    low = 2**31 - 1
    return NoiseTable(
        np.array([threshold >> 31 for threshold in thresholds], np.uint32),
        np.array([threshold & low for threshold in thresholds], np.uint32),
    )


def draw(table: NoiseTable, key: jax.Array, size: int) -> jax.Array:
    """Returns int32[size] independent numbers of a table.

    Args:
      table: Of their magnitudes.
      key: Typed PRNG key of these numbers.
      size: How many.

    Example:
      >>> from fljax.privacy import integer_noise
      >>> table = integer_noise.discrete_gaussian_table(10)
      >>> numbers = integer_noise.draw(table, jax.random.key(0), 10_000)
      >>> numbers.dtype.name, bool(abs(numbers.std() - 10) < 0.3)
      ('int32', True)
    """
    high, low = jax.random.bits(key, (2, size), jnp.uint32)
    is_negative, low = low & 1 == 1, low >> 1
    capacity = 1 << table.largest.bit_length()
    full = np.full(capacity - table.largest, 2**32 - 1, np.uint32)
    tops = jnp.asarray(np.concatenate([table.high, full]))
    rests = jnp.asarray(np.concatenate([table.low, full]))
    magnitude = jnp.zeros(size, jnp.int32)
    step = capacity >> 1
    while step:  # how many thresholds a word has reached, by bisection
        place = magnitude + (step - 1)
        top = tops[place]
        reached = (high > top) | ((high == top) & (low >= rests[place]))
        magnitude += jnp.where(reached, step, 0)
        step >>= 1
    return jnp.where(is_negative, -magnitude, magnitude)
