"""Standard errors of answers: of the noise in sums, and of a sample of clients.

The noise of a sum follows from the mechanism, and that of an answer from its derivatives by the
sums (the delta method). A sample of G cohorts that are drawn alike gives the jackknife (Wolter
2007, "Introduction to variance estimation", chapter 4): with a(g) the answer without cohort g,

    standard error^2 = (1 - f) (G - 1) / G  sum_g (a(g) - mean a)^2

where f is the share of the population that was asked, 0 where cohorts may share clients. The
answer's noise is in these differences already.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from fljax.analytics.query import Asked

PyTree = Any

EXACT = "everybody was asked, and nothing added: exact up to the rounding of float64"
NOISE = "the noise of the sums, by the delta method"
SAMPLE = "the jackknife over cohorts that were drawn alike, noise included"
UNKNOWN = "no theory of this mechanism's noise in sums"


def standard_error(
    value: Callable[[PyTree], Any], asked: Asked, of_noise: Callable[[float], Any]
) -> tuple[Any, str]:
    """Returns (the standard error of an answer, what it follows from).

    Args:
      value: (total) -> the answer, a number or an array.
      asked: Who has answered.
      of_noise: (standard deviation of the noise of each number of a total) -> that of the answer.

    Example:
      >>> cohorts = {"sum": np.array([9.0, 11.0]), "count": np.array([10.0, 10.0])}
      >>> asked = Asked(clients=1000, share=0.02, cohorts=cohorts)
      >>> error, _ = standard_error(lambda t: t["sum"] / t["count"], asked, lambda std: 0.0)
      >>> round(float(error), 3)
      0.099
    """
    if asked.cohorts is not None:
        return jackknife(value, asked), SAMPLE
    if asked.noise is None:
        return None, UNKNOWN
    return of_noise(asked.noise), NOISE if asked.noise else EXACT


def jackknife(value: Callable[[PyTree], Any], asked: Asked) -> np.ndarray:
    """Returns the standard error of an answer by leaving out one cohort after another.

    Args:
      value: (total) -> the answer, which may depend on how many clients have answered.
      asked: Who has, with the totals of cohorts.

    Example:
      >>> asked = Asked(clients=100, share=0.5, cohorts=np.array([4.0, 6.0]))
      >>> float(jackknife(lambda total: total, asked))
      1.4142135623730951
    """
    cohorts = jax.tree.map(np.asarray, asked.cohorts)
    total = jax.tree.map(lambda leaf: leaf.sum(0), cohorts)
    count = len(jax.tree.leaves(cohorts)[0])
    grown = count / (count - 1)
    without = [
        value(jax.tree.map(lambda t, leaf, g=g: (t - leaf[g]) * grown, total, cohorts))
        for g in range(count)
    ]
    gaps = np.asarray(without, np.float64) - np.mean(without, 0)
    rest = 1.0 if asked.replaced else 1 - asked.share
    return np.sqrt(rest * (count - 1) / count * np.square(gaps).sum(0))
