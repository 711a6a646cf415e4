"""Numbers of different items that clients hold: all together, in groups, and in common.

Linear counting (Whang, Vander-Zanden and Taylor 1990): each client marks the cells that its items
hash to, 1 in each; of m cells the share V that nobody has marked estimates

    n = -m ln V,    standard error^2 = m (e^(n/m) - n/m - 1)

(their equation 13). A union of maxima, such as HyperLogLog needs, is no sum; marked cells are: the
sum of a cell counts the clients that have marked it, and is 0 only if none has. The secure sum
shows these counts, not only whether they are 0.

Noise hides zeros. With noise of standard deviation s in whole numbers c,

    g(c + noise) = 1/pi  integral from 0 to pi of cos(t (c + noise)) e^(s^2 t^2 / 2) dt

is 1 on average if c = 0, and 0 for any other c, since cos(t noise) is e^(-s^2 t^2 / 2) on average
(the deconvolution of characteristic functions); so V is estimated by the mean of g. Its variance
grows as e^(s^2 pi^2): with s above 1.5 or so nothing is left. The standard error follows from the
spread over cells, which are alike, less that of a number of items that is not fixed.

Cells of a union are 0 where those of all groups are, and sizes of intersections follow from those
of unions by inclusion and exclusion.
"""

from __future__ import annotations

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np

from fljax.analytics.errors import UNKNOWN
from fljax.analytics.hashing import row_hashes
from fljax.analytics.query import SCALAR, Answer, Asked, Query, unchanged
from fljax.core.values import COUNT, Field, Interval, checked

_CELLS = Field(2**16, int, Interval(2, 2**24))
_ITEMS = Field(None, int, COUNT, optional=True)
_MOST_GROUPS = 8
# Of noise beyond which an estimate of zeros is a number at random.
_MOST_NOISE = 2.0
_THEORY = "the spread of marked cells (linear counting, Whang et al. 1990), noise included"


def count_distinct(
    cells: int = 2**16,
    *,
    items_per_client: int | None = None,
    like: jax.ShapeDtypeStruct = SCALAR,
) -> Query:
    """Returns the query of how many different rows there are.

    Args:
      cells: m, of the bitmap; as many as there are items, or more, keep the error below their root.
      items_per_client: Marks that a client sends at most, drawn at random among its own; None for
        all, which differential privacy refuses.
      like: Shape and type of a row, a number or a vector such as the bytes of a word.

    Raises:
      ValueError: If an argument is out of range.

    Example:
      >>> query = count_distinct(1024, items_per_client=4)
      >>> query.sensitivity, query.message["marks"].shape
      (2.0, (1024,))
    """
    return _bitmaps("count_distinct", cells, items_per_client, 1, [((0,), 1)])


def union_size(
    groups: int,
    cells: int = 2**16,
    *,
    items_per_client: int | None = None,
    like: jax.ShapeDtypeStruct = SCALAR,
) -> Query:
    """Returns the query of how many different rows groups of clients hold together, and each.

    Args:
      groups: How many groups of clients there are.
      cells, items_per_client, like: As for `count_distinct`.

    Raises:
      ValueError: If an argument is out of range.

    Example:
      >>> union_size(groups=2, cells=64).message["marks"].shape
      (2, 64)
    """
    everybody = tuple(range(_checked_groups(groups)))
    return _bitmaps("union_size", cells, items_per_client, groups, [(everybody, 1)])


def intersection_size(
    groups: int,
    cells: int = 2**16,
    *,
    items_per_client: int | None = None,
    like: jax.ShapeDtypeStruct = SCALAR,
) -> Query:
    """Returns the query of how many different rows all groups of clients have in common.

    Args:
      groups, cells, items_per_client, like: As for `union_size`.

    Raises:
      ValueError: If an argument is out of range.

    Example:
      >>> intersection_size(groups=2, cells=64, items_per_client=1).sensitivity
      1.0
    """
    _checked_groups(groups)
    signed = [
        (chosen, (-1) ** (size + 1))
        for size in range(1, groups + 1)
        for chosen in itertools.combinations(range(groups), size)
    ]
    return _bitmaps("intersection_size", cells, items_per_client, groups, signed)


def _checked_groups(groups: int) -> int:
    if groups not in range(2, _MOST_GROUPS + 1):
        raise ValueError(
            f"The clients are of {groups} groups, and sizes of unions are those of 2 to "
            f"{_MOST_GROUPS}. Give the data set groups={{'name': [the group of each client]}}."
        )
    return groups


def _bitmaps(name: str, cells: int, most: int | None, groups: int, unions: list) -> Query:
    """Returns the query of a sum of sizes of unions.

    Args:
      name: Of the query.
      cells: Of a bitmap.
      most: Marks of a client at most, or None.
      groups: How many groups there are, each with a bitmap of its own.
      unions: [(groups, factor)], the unions whose sizes are added up.
    """
    cells = checked("cells", cells, _CELLS)
    most = checked("items_per_client", most, _ITEMS)
    shape = (cells,) if groups == 1 else (groups, cells)

    def start(question, job):
        del question, job
        return {"marked": jnp.zeros(cells, bool)}

    def fold(question, carry, values, mask, job):
        del question, job
        where = row_hashes(values) % np.uint32(cells)
        where = jnp.where(mask, where.astype(jnp.int32), cells)
        return {"marked": carry["marked"].at[where].set(True, mode="drop")}

    def send(question, carry, job):
        del question
        marked = carry["marked"]
        if most is not None and most < cells:
            lots = jnp.where(marked, jax.random.uniform(job.key, (cells,)), -1)
            _, kept = jax.lax.top_k(lots, most)
            marked &= jnp.zeros(cells, bool).at[kept].set(True)
        if groups == 1:
            return {"marks": marked.astype(jnp.int32)}
        own = jnp.arange(groups) == job.group
        return {"marks": (own[:, None] & marked).astype(jnp.int32)}

    def answer(question, total, asked: Asked) -> Answer:
        del question
        if asked.noise is None:
            marks = np.asarray(total["marks"])
            return Answer(
                math.nan, None, "items", f"{UNKNOWN}: zeros cannot be told", {"marks": marks}
            )
        zeros = zero_chances(np.asarray(total["marks"], np.float64), asked.noise)
        value, error = union_sizes(zeros.reshape(groups, cells), unions)
        details = {"cells": cells}
        if groups > 1:
            sizes = [union_sizes(zeros, [((group,), 1)])[0] for group in range(groups)]
            details["items of each group"] = sizes
        return Answer(value, error, "items", _THEORY, details)

    return Query(
        name,
        {"marks": jax.ShapeDtypeStruct(shape, jnp.int32)},
        (),
        start,
        fold,
        send,
        unchanged,
        answer,
        sensitivity=math.inf if most is None else math.sqrt(min(most, cells)),
        bounds="items_per_client, how many different items of a client count",
        largest=1.0,
        whole=True,
        everybody=True,
        most_noise=_MOST_NOISE,
    )


def zero_chances(sums: np.ndarray, noise: float) -> np.ndarray:
    """Returns float64 numbers that are 1 on average where whole numbers are 0, and else 0.

    Args:
      sums: float64, whole numbers with normal noise.
      noise: Standard deviation of the noise.

    Example:
      >>> zero_chances(np.array([0.0, 2.0]), noise=0.0).tolist()
      [1.0, 0.0]
      >>> noise = np.random.default_rng(0).normal(size=(2, 100_000))
      >>> zero_chances(noise + [[0.0], [1.0]], noise=1.0).mean(1).round(1).tolist()
      [1.0, 0.0]
    """
    if noise == 0:
        return (np.round(sums) == 0).astype(np.float64)
    from scipy.special import wofz  # what is slow to import is imported where it is needed

    # the integral in closed form, by the Faddeeva function
    a, size = noise**2 / 2, np.abs(sums)
    root = math.sqrt(a)
    turned = np.exp(a * math.pi**2 + 1j * math.pi * size)
    end = wofz(root * math.pi + 1j * size / (2 * root))
    return (turned * end).imag / (2 * math.sqrt(math.pi) * root)


def union_sizes(zeros: np.ndarray, unions: list) -> tuple[float, float]:
    """Returns (a sum of sizes of unions, its standard error), by linear counting.

    Args:
      zeros: float64[groups, cells], 1 on average where a group has marked nothing.
      unions: [(groups, factor)].

    Returns:
      NaN for both where no cell is left unmarked.

    Example:
      >>> zeros = np.array([[1.0] * 90 + [0.0] * 10])
      >>> [round(number, 2) for number in union_sizes(zeros, [((0,), 1)])]
      [10.54, 0.76]
    """
    cells = zeros.shape[-1]
    value, influence = 0.0, np.zeros(cells)
    for groups, factor in unions:
        free = np.prod(zeros[list(groups)], axis=0)
        share = free.mean()
        if share <= 0:
            return math.nan, math.nan
        value -= factor * cells * math.log(share)
        influence += factor * free / share
    # cells of a number of items that is Poisson; the items there are have no such spread
    error = max(cells * float(influence.var()) - max(value, 0.0), 0.0)
    return value, math.sqrt(error)
