"""Mean and variance of the rows of all clients.

With sums n = sum w, S = sum w u and Q = sum w u^2 over the rows, where u is a row within its bounds
(`ranges.py`) and w what it counts,

    mean = middle + half S / n,    variance = half^2 (Q / n - (S / n)^2)

Where values have no bounds, a first question finds the mean, and the second one asks for squares
around it, so that no digits are lost (Chan, Golub and LeVeque 1983, the two-pass algorithm with a
correction).
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fljax.analytics.errors import standard_error
from fljax.analytics.query import SCALAR, Answer, Asked, Query, unchanged
from fljax.analytics.ranges import BOUNDS, checked_range
from fljax.analytics.weighting import CAPS, checked_weighting


def mean(
    low: Any = None,
    high: Any = None,
    *,
    weighting: str = "examples",
    weight_cap: float | None = None,
    like: jax.ShapeDtypeStruct = SCALAR,
) -> Query:
    """Returns the query of the mean of all rows, feature by feature.

    Args:
      low, high: Bounds of values, numbers or lists of one for each feature; None for none, which
        differential privacy refuses.
      weighting, weight_cap: What a client's rows count; see `weighting.py`.
      like: Shape and type of a row.

    Raises:
      ValueError: If an argument is out of range.

    Example:
      >>> query = mean(0, 10, weight_cap=1)
      >>> round(query.sensitivity, 3), query.questions
      (1.414, 1)
    """
    return _moments("mean", 1, checked_range(low, high, like.shape), weighting, weight_cap, 0)


def variance(
    low: Any = None,
    high: Any = None,
    *,
    ddof: int = 0,
    weighting: str = "examples",
    weight_cap: float | None = None,
    like: jax.ShapeDtypeStruct = SCALAR,
) -> Query:
    """Returns the query of the variance of all rows, feature by feature.

    Args:
      low, high, weighting, weight_cap, like: As for `mean`.
      ddof: What the sum of squares is divided by: n - ddof.

    Raises:
      ValueError: If an argument is out of range.

    Example:
      >>> variance().questions, round(variance(0, 1, weighting="uniform").sensitivity, 3)
      (2, 1.732)
    """
    if ddof not in (0, 1):
        raise ValueError(f"ddof = {ddof!r} must be 0, or 1 for the unbiased variance.")
    return _moments(
        "variance", 2, checked_range(low, high, like.shape), weighting, weight_cap, ddof
    )


def _moments(name, powers, bounds, weighting, weight_cap, ddof) -> Query:
    counted = checked_weighting(weighting, weight_cap)
    wide = jax.dtypes.canonicalize_dtype(float)
    names = ("sum", "squares")[:powers]
    message = {"count": jax.ShapeDtypeStruct((), counted.count_type)}
    message |= {each: jax.ShapeDtypeStruct(bounds.shape, wide) for each in names}
    centred = powers == 2 and not bounds.is_bounded
    question = jnp.zeros(bounds.shape, wide) if centred else ()

    def start(question, job):
        del question, job
        sums = {each: jnp.zeros(bounds.shape, wide) for each in names}
        return {"count": jnp.zeros((), jnp.int32), **sums}

    def fold(question, carry, values, mask, job):
        del job
        scaled = bounds.scaled(values)
        scaled = scaled - question if centred else scaled
        scaled = jnp.where(mask.reshape(-1, *(1,) * len(bounds.shape)), scaled, 0)
        more = {each: (scaled**power).sum(0) for power, each in enumerate(names, 1)}
        return {"count": carry["count"] + mask.sum(dtype=jnp.int32)} | {
            each: carry[each] + more[each] for each in names
        }

    def send(question, carry, job):
        del question, job
        return counted.of(carry, carry["count"])

    def follow(question, total):
        return question + total["sum"] / jnp.maximum(total["count"], 1e-300)

    def answer(question, total, asked: Asked) -> Answer:
        value = {"mean": _mean, "variance": _variance}[name]
        shift = np.asarray(question) if centred else bounds.middle

        def of(total):
            return value(total, shift, bounds.half, ddof)

        def of_noise(std):
            return std * _slope(name, total, bounds.half)

        error, theory = standard_error(of, asked, of_noise)
        count = float(total["count"])
        details = {"rows" if counted.is_plain else "weight": count / asked.share}
        return Answer(of(total), error, "value" if name == "mean" else "value^2", theory, details)

    return Query(
        name,
        message,
        question,
        start,
        fold,
        send,
        follow if centred else unchanged,
        answer,
        questions=2 if centred else 1,
        sensitivity=bounds.norm(powers) * counted.most,
        bounds=CAPS if bounds.is_bounded else f"{BOUNDS}, and {CAPS}",
        largest=counted.most if bounds.is_bounded else math.inf,
    )


def _mean(total, shift, half, ddof):
    del ddof
    return shift + half * np.asarray(total["sum"]) / _above_zero(total["count"])


def _variance(total, shift, half, ddof):
    del shift
    count = _above_zero(total["count"])
    squares = np.asarray(total["squares"]) - np.asarray(total["sum"]) ** 2 / count
    # noise may make a small variance negative
    return half**2 * np.maximum(squares / _above_zero(count - ddof), 0)


def _slope(name, total, half):
    """Returns the norm of the derivatives of an answer by the numbers of a total."""
    count = _above_zero(total["count"])
    first = np.asarray(total["sum"]) / count
    if name == "mean":
        return np.abs(half) * np.sqrt(1 + first**2) / count
    second = np.asarray(total["squares"]) / count
    by_count = 2 * first**2 - second
    return half**2 * np.sqrt(1 + 4 * first**2 + by_count**2) / count


def _above_zero(count):
    """Returns a count that noise has not made zero or less; NaN where it has."""
    count = np.asarray(count, np.float64)
    return np.where(count > 0, count, np.nan)
