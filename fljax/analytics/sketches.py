"""Heavy hitters by count sketches: one question, and a message far smaller than a histogram.

Charikar, Chen and Farach-Colton 2002 ("Finding frequent items in data streams"). Each of d hash
functions sends an item to one of w cells with a random sign; a client adds its signs up. The
estimate of an item's frequency is the median, over the d rows, of sign x cell. Cells hold other
items too, and noise, which both add up with random signs: a row errs with variance

    F2 / w + s^2,    F2 = sum of squared frequencies of the tail, s^2 the variance of the noise

where the tail is all but the w / 8 most frequent items at most, which hardly meet in most rows (F2
/ w is the paper's gamma^2; Pagh and Thorup 2022, arXiv:2205.08397, for noise). The median of d such
estimates has pi / (2 d) of it, as that of normal numbers does for large d; for d = 1 all of it.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np

from fljax.analytics.errors import SAMPLE, UNKNOWN, jackknife
from fljax.analytics.hashing import mixed
from fljax.analytics.histograms import check_scalar
from fljax.analytics.query import SCALAR, Answer, Asked, Query, unchanged
from fljax.analytics.weighting import CAPS, checked_weighting
from fljax.core.values import COUNT, Field, checked

_COUNT = Field(None, int, COUNT)
_SIGN_SEEDS = 1000
_ITEMS_AT_ONCE = 2**20
# Cells for each item that may be frequent, and how many errors it stands out by.
_HEAD, _STANDS_OUT = 8, 4.0


def count_sketch(
    items: int,
    most: int = 10,
    depth: int = 5,
    width: int = 1024,
    *,
    weighting: str = "examples",
    weight_cap: float | None = None,
    like: jax.ShapeDtypeStruct = SCALAR,
) -> Query:
    """Returns the query of the most frequent items, by a count sketch.

    Args:
      items: How many items there are: rows hold numbers from 0 to items - 1.
      most: How many of the most frequent ones are wanted.
      depth, width: Hash functions d, and cells w of each.
      weighting, weight_cap: What a client's rows count; see `weighting.py`.
      like: Shape and type of a row, which is a whole number.

    Raises:
      ValueError: If an argument is out of range, or rows are no whole numbers.

    Example:
      >>> query = count_sketch(10**6, like=jax.ShapeDtypeStruct((), jnp.int32), weight_cap=1)
      >>> query.message["cells"].shape, round(query.sensitivity, 3)
      ((5, 1024), 2.236)
    """
    check_scalar("count_sketch", like)
    if not jnp.issubdtype(like.dtype, jnp.integer):
        raise ValueError(
            f"count_sketch asks for items, whole numbers from 0, and rows are {like.dtype}."
        )
    items, most = checked("items", items, _COUNT), checked("most", most, _COUNT)
    depth, width = checked("depth", depth, _COUNT), checked("width", width, _COUNT)
    counted = checked_weighting(weighting, weight_cap)

    def start(question, job):
        del question, job
        return {"cells": jnp.zeros((depth, width), jnp.int32), "rows": jnp.zeros((), jnp.int32)}

    def fold(question, carry, values, mask, job):
        del question, job
        known = mask & (values >= 0) & (values < items)
        cells, signs = places_of(values, depth, width)
        cells = cells + width * jnp.arange(depth)[:, None]
        more = jnp.zeros(depth * width, jnp.int32)
        more = more.at[cells.reshape(-1)].add(jnp.where(known, signs, 0).reshape(-1))
        rows = carry["rows"] + mask.sum(dtype=jnp.int32)
        return {"cells": carry["cells"] + more.reshape(depth, width), "rows": rows}

    def send(question, carry, job):
        del question, job
        return counted.of({"cells": carry["cells"]}, carry["rows"])

    def answer(question, total, asked: Asked) -> Answer:
        del question
        return _answer(total, asked, items, most, "rows" if counted.is_plain else "weight")

    return Query(
        "count_sketch",
        {"cells": jax.ShapeDtypeStruct((depth, width), counted.count_type)},
        (),
        start,
        fold,
        send,
        unchanged,
        answer,
        sensitivity=counted.most * math.sqrt(depth),
        bounds=CAPS,
        largest=counted.most,
        whole=counted.is_plain,
    )


def places_of(items: jax.Array, depth: int, width: int) -> tuple[jax.Array, jax.Array]:
    """Returns (int32[depth, B] cells of items, int32[depth, B] their signs).

    Example:
      >>> cells, signs = places_of(jnp.array([3, 4, 3]), depth=2, width=8)
      >>> cells[:, 0].tolist() == cells[:, 2].tolist(), set(jnp.abs(signs).reshape(-1).tolist())
      (True, {1})
    """
    words = items.astype(jnp.uint32)
    cells = [mixed(words, row) % np.uint32(width) for row in range(depth)]
    signs = [mixed(words, _SIGN_SEEDS + row) >> 31 for row in range(depth)]
    return jnp.stack(cells).astype(jnp.int32), 1 - 2 * jnp.stack(signs).astype(jnp.int32)


def estimates(cells: np.ndarray, items: np.ndarray) -> np.ndarray:
    """Returns float64[n], the estimated frequencies of items.

    Args:
      cells: float64[depth, width], the sums of all clients.
      items: int[n].

    Example:
      >>> cells, signs = places_of(jnp.array([3]), depth=3, width=8)
      >>> sums = np.zeros((3, 8))
      >>> sums[np.arange(3), np.asarray(cells)[:, 0]] = 5.0 * np.asarray(signs)[:, 0]
      >>> estimates(sums, np.array([3])).tolist()
      [5.0]
    """
    depth, width = cells.shape
    places, signs = jax.device_get(places_of(jnp.asarray(items), depth, width))
    return np.median(np.take_along_axis(cells, places, 1) * signs, axis=0)


def _answer(total, asked: Asked, items: int, most: int, unit: str) -> Answer:
    cells = np.asarray(total["cells"], np.float64) / asked.share
    depth, width = cells.shape
    parts = [np.arange(i, min(i + _ITEMS_AT_ONCE, items)) for i in range(0, items, _ITEMS_AT_ONCE)]
    every = np.concatenate([estimates(cells, part) for part in parts])
    order = np.argsort(-every, kind="stable")
    found = order[:most]
    value = dict(zip(found.tolist(), every[found].tolist(), strict=True))
    details = {"depth": depth, "width": width}
    if asked.cohorts is not None:
        of = lambda t: estimates(np.asarray(t["cells"]) / asked.share, found)  # noqa: E731
        error = jackknife(of, asked)
        return Answer(value, dict(zip(value, error.tolist(), strict=True)), unit, SAMPLE, details)
    if asked.noise is None:
        return Answer(value, None, unit, UNKNOWN, details)
    head = order[: width // _HEAD]
    error = sketch_error(cells, head, every[head], asked.noise / asked.share)
    theory = "infrequent items and noise in the cells of an item (Charikar et al. 2002)"
    return Answer(value, dict.fromkeys(value, error), unit, theory, details)


def sketch_error(
    cells: np.ndarray, head: np.ndarray, frequencies: np.ndarray, noise: float = 0.0
) -> float:
    """Returns the standard error of estimated frequencies.

    Args:
      cells: float64[depth, width], the sums of all clients.
      head: int[n] items that may be frequent; those are which stand out of what the others leave.
      frequencies: float64[n], their estimated frequencies.
      noise: Standard deviation of the noise in a cell.

    Example:
      >>> round(sketch_error(np.array([[3.0, -4.0]]), np.array([], int), np.array([])), 3)
      3.536
    """
    depth, width = cells.shape
    of_median = math.sqrt(1 if depth == 1 else math.pi / (2 * depth))
    places, signs = jax.device_get(places_of(jnp.asarray(head), depth, width))
    chosen = np.zeros(len(head), bool)
    while True:
        rest = cells.copy()
        for row in range(depth):
            frequent = signs[row, chosen] * frequencies[chosen]
            np.subtract.at(rest[row], places[row, chosen], frequent)
        tail = float(np.median(np.square(rest).sum(1))) - width * noise**2
        error = math.sqrt(max(tail, 0.0) / width + noise**2) * of_median
        stands_out = chosen | (frequencies > _STANDS_OUT * error)
        if (stands_out == chosen).all():
            return error
        chosen = stands_out
