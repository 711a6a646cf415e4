"""Quantiles of the rows of all clients, found digit by digit.

The quantile of p / r is the smallest value t with S(t) >= 0, where S(t) = r (rows up to t) - p (all
rows). Values have codes (`codes.py`); each question asks for S at the borders of the next digit of
the code, for all quantiles at once, so that a few passes find the very row that NumPy calls the
"inverted_cdf".

Under noise, one row changes S(t) by max(p, r - p) at most, whatever the values are: quantiles need
no bounds, but each digit costs a question. With noise of standard deviation s in each of T answers,
all of which stay below b = s Phi^-1(1 - 0.025 / T) with probability 95 % (a union bound), every
border with S < -b lies below the quantile, and every one with S > b above it. Between the nearest
two lies the interval of an answer, and by b / r rows, at most, is its rank wrong, but for the rows
that lie within one step of the last digit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from statistics import NormalDist
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fljax.analytics.codes import Codes, code_type, even_codes, exact_codes, whole_codes
from fljax.analytics.errors import EXACT, UNKNOWN, jackknife
from fljax.analytics.histograms import check_scalar
from fljax.analytics.query import SCALAR, Answer, Asked, Query
from fljax.analytics.ranges import checked_range
from fljax.analytics.weighting import CAPS, Weighting, checked_weighting
from fljax.core.values import Field, Interval, checked, wrong

PyTree = Any
_LEVEL = Field(0.5, float, Interval(0, 1))
_BITS = Field(None, int, Interval(1, 62), optional=True)
_BRANCHING = Field(None, int, Interval(2, 1024), optional=True)
# Denominators of levels, such as 0.999; finer ones are rounded.
_FINEST = 10**6
# Of even steps: without noise, and with noise, where each digit costs a question.
_BITS_EXACT, _BITS_NOISY = 32, 12
# What the interval of an answer holds with.
CONFIDENCE = 0.95


class Levels(NamedTuple):
    """The levels p / r of quantiles, as float64[m] whole numbers.

    Attributes:
      p, r: Numerators and denominators.
      unit: What S is divided by as it is sent.
    """

    p: np.ndarray
    r: np.ndarray
    unit: np.ndarray


def quantile(
    level: float,
    low: float | None = None,
    high: float | None = None,
    *,
    bits: int | None = None,
    branching: int | None = None,
    weighting: str = "examples",
    weight_cap: float | None = None,
    like: jax.ShapeDtypeStruct = SCALAR,
    noisy: bool = False,
) -> Query:
    """Returns the query of a quantile; arguments as for `quantiles`.

    Example:
      >>> quantile(0.5).questions, quantile(0.5, 0, 1, weight_cap=1, noisy=True).sensitivity
      (4, 1.0)
    """
    query = quantiles(
        (level,), low, high, bits=bits, branching=branching, weighting=weighting,
        weight_cap=weight_cap, like=like, noisy=noisy,
    )  # fmt: skip
    several = query.answer

    def answer(question, total, asked):
        found = several(question, total, asked)
        one = {name: _first(value) for name, value in found.details.items()}
        return found._replace(
            value=_first(found.value), standard_error=_first(found.standard_error), details=one
        )

    return query._replace(name="quantile", answer=answer)


def _first(value):
    return value[0] if isinstance(value, list | np.ndarray) else value


def quantiles(
    levels: Sequence[float],
    low: float | None = None,
    high: float | None = None,
    *,
    bits: int | None = None,
    branching: int | None = None,
    weighting: str = "examples",
    weight_cap: float | None = None,
    like: jax.ShapeDtypeStruct = SCALAR,
    noisy: bool = False,
) -> Query:
    """Returns the query of quantiles.

    Args:
      levels: Shares of the rows that are at or below them.
      low, high: Bounds between which the search goes by even steps; what lies outside counts as the
        bound. None searches all numbers of the type of the rows, and finds a row's value exactly.
      bits: Binary digits of the steps between the bounds; None for 32, or 12 under noise, and for
        steps of 1 where rows are whole numbers.
      branching: Into how many parts a question divides what is left, a power of two; None for 256,
        or 2 under noise.
      weighting, weight_cap: What a client's rows count; see `weighting.py`.
      like: Shape and type of a row, which is a number.
      noisy: Whether there will be noise in the sums.

    Raises:
      ValueError: If an argument is out of range, or rows are no numbers.

    Example:
      >>> query = quantiles((0.1, 0.5, 0.9))
      >>> query.questions, query.message["below"].shape
      (4, (3, 255))
    """
    check_scalar("quantile", like)
    chosen, counted = _checked_levels(levels, noisy), checked_weighting(weighting, weight_cap)
    bounds = checked_range(low, high)
    bits = checked("bits", bits, _BITS)
    if bounds.is_bounded and bits is None and jnp.issubdtype(like.dtype, jnp.integer):
        codes = whole_codes(bounds)
    elif bounds.is_bounded:
        codes = even_codes(bounds, bits or (_BITS_NOISY if noisy else _BITS_EXACT))
    elif bits is not None:
        raise ValueError(f"bits = {bits} has no effect without low and high. Give them too.")
    else:
        codes = exact_codes(like.dtype)
    branching = checked("branching", branching, _BRANCHING) or (2 if noisy else 256)
    digit = branching.bit_length() - 1
    if branching != 1 << digit:
        raise wrong("branching", branching, "a power of two, such as 2 or 256")
    return _search(chosen, codes, min(digit, codes.bits), counted, noisy)


def _checked_levels(levels: Sequence[float], noisy: bool) -> Levels:
    if isinstance(levels, str) or not np.ndim(levels) or not len(levels):
        raise wrong("levels", levels, "a list of numbers from 0 to 1, such as (0.1, 0.5, 0.9)")
    shares = [
        Fraction(checked("level", level, _LEVEL)).limit_denominator(_FINEST) for level in levels
    ]
    p = np.array([share.numerator for share in shares], np.float64)
    r = np.array([share.denominator for share in shares], np.float64)
    # under one clip norm, all levels get the same share of the noise
    return Levels(p, r, np.maximum(p, r - p) if noisy else np.ones_like(p))


def _search(levels: Levels, codes: Codes, digit: int, counted: Weighting, noisy: bool) -> Query:
    """Returns the query that finds codes digit by digit, each of `digit` bits."""
    questions, borders, count = -(-codes.bits // digit), 2**digit - 1, len(levels.p)
    wide, word = jax.dtypes.canonicalize_dtype(float), code_type()
    p, r, unit = (column[:, None] for column in levels)
    shape = (count, borders)
    first = {
        "prefix": jnp.zeros(count, word),
        "number": jnp.zeros((), jnp.int32),
        "asked": jnp.zeros((questions, *shape), word),
        "heard": jnp.zeros((questions, *shape), wide),
    }

    def shift_of(number):
        """Returns how many bits lie below a digit; the last one may be a short one."""
        return jnp.maximum(codes.bits - digit * (number + 1), 0).astype(word)

    def borders_of(question):
        """Returns codes[count, borders], the last ones of all parts but the last part."""
        shift = shift_of(question["number"])
        ends = (jnp.arange(1, borders + 1).astype(word) << shift) - jnp.ones((), word)
        return question["prefix"][:, None] + ends

    def start(question, job):
        del question, job
        return {"below": jnp.zeros(shape, jnp.int32), "rows": jnp.zeros((), jnp.int32)}

    def fold(question, carry, values, mask, job):
        del job
        up_to = codes.of(values)[:, None, None] <= borders_of(question)
        below = (up_to & mask[:, None, None]).sum(0, dtype=jnp.int32)
        rows = carry["rows"] + mask.sum(dtype=jnp.int32)
        return {"below": carry["below"] + below, "rows": rows}

    def send(question, carry, job):
        del question, job
        if not noisy:
            return counted.of(carry, carry["rows"])
        signed = (r * carry["below"] - p * carry["rows"]) / unit
        return {"signed": counted.of(signed.astype(wide), carry["rows"])}

    def signed_of(total):
        """Returns S at the borders, divided by the unit."""
        if noisy:
            return total["signed"]
        return r * total["below"] - p * total["rows"]

    def follow(question, total):
        signed, turn = signed_of(total), question["number"]
        # of level 0 the smallest row is meant, and not what lies below it
        is_below = signed < jnp.where(p == 0, 0.5, 0.0)
        part = is_below.sum(1).astype(word)
        return {
            "prefix": question["prefix"] + (part << shift_of(turn)),
            "number": turn + 1,
            "asked": question["asked"].at[turn].set(borders_of(question)),
            "heard": question["heard"].at[turn].set(signed),
        }

    def answer(question, total, asked: Asked) -> Answer:
        told = jax.device_get(follow(*jax.tree.map(jnp.asarray, (question, total))))
        value = codes.value(np.minimum(told["prefix"], word.type(2**codes.bits - 1)))
        return _answer(levels, codes, told, value, counted, asked, signed_of)

    norm = math.sqrt(borders) * float(np.linalg.norm(np.maximum(levels.p, levels.r - levels.p)))
    wanted = {"below": jax.ShapeDtypeStruct(shape, counted.count_type)}
    wanted["rows"] = jax.ShapeDtypeStruct((), counted.count_type)
    if noisy:
        norm = math.sqrt(borders * count)
        wanted = {"signed": jax.ShapeDtypeStruct(shape, wide)}
    return Query(
        "quantiles",
        wanted,
        first,
        start,
        fold,
        send,
        follow,
        answer,
        questions=questions,
        sensitivity=norm * counted.most,
        bounds=CAPS,
        largest=counted.most,
        whole=counted.is_plain and not noisy,
        tell=lambda question: {name: question[name] for name in ("prefix", "number")},
    )


def _answer(levels, codes, told, value, counted, asked: Asked, signed_of) -> Answer:
    """Returns the answer of a search, with what its errors are."""
    unit = "value"
    details: dict[str, Any] = {"levels": levels.p / levels.r}
    exact = np.zeros(len(value))
    rank_unit = "rows" if counted.is_plain else "weight"
    if asked.cohorts is not None:
        spread = jackknife(lambda total: np.asarray(signed_of(total)), asked) / asked.share
        place = np.abs(told["heard"][told["number"] - 1]).argmin(1)
        at_answer = np.take_along_axis(spread, place[:, None], 1)[:, 0]
        details[f"standard error of the rank, in {rank_unit}"] = at_answer * levels.unit / levels.r
        return Answer(value, None, unit, "the jackknife of S at the last border, in ranks", details)
    if asked.noise is None:
        return Answer(value, None, unit, UNKNOWN, details)
    if asked.noise == 0:
        return Answer(value, exact, unit, f"{EXACT}, and to one step of the search", details)
    bound = noise_bound(asked.noise, told["heard"][0].size // len(value) * len(told["heard"]))
    details["interval"] = [
        _interval(
            codes, told["asked"][:, number].reshape(-1), told["heard"][:, number].reshape(-1), bound
        )
        for number in range(len(value))
    ]
    details[f"bound of the error of the rank, in {rank_unit}"] = (
        bound / asked.share * levels.unit / levels.r
    )
    theory = f"a union bound over all borders, which holds with {CONFIDENCE:.0%}: see the interval"
    return Answer(value, None, unit, theory, details)


def noise_bound(noise: float, borders: int) -> float:
    """Returns what the noises at all borders stay below with probability `CONFIDENCE`.

    Args:
      noise: Standard deviation at one border.
      borders: How many are asked about, one after another.

    Example:
      >>> round(noise_bound(10.0, borders=12), 1)
      28.7
    """
    return noise * NormalDist().inv_cdf(1 - (1 - CONFIDENCE) / (2 * borders))


def _interval(codes: Codes, asked: np.ndarray, heard: np.ndarray, bound: float) -> list[float]:
    """Returns the values between which a quantile lies if no noise exceeds a bound."""
    below, above = asked[heard < -bound], asked[heard > bound]
    last = np.array(2**codes.bits - 1, asked.dtype)
    ends = [below.max() if below.size else np.zeros_like(last), above.min() if above.size else last]
    return [float(codes.value(end)) for end in ends]
