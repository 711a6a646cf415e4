"""k-means of the rows of all clients, by federated Lloyd steps.

Each question sends k centres; clients assign their rows to the nearest and send, of each centre,
the sum of its rows and their number, so that a step is Lloyd's on all rows together (Lloyd 1982).
With noise it is that of Blum, Dwork, McSherry and Nissim 2005 ("Practical privacy: the SuLQ
framework"): noisy sums over noisy counts. Rows count within their bounds, from -1 to 1 in each
feature (`ranges.py`), in which distances are measured too. A centre that no row is near to stays
where it is, as one does whose noisy weight is not above zero; noise never moves one out of bounds.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fljax.analytics.errors import standard_error
from fljax.analytics.query import Answer, Asked, Query
from fljax.analytics.ranges import BOUNDS, Range, checked_range
from fljax.analytics.weighting import CAPS, Weighting, checked_weighting
from fljax.core import random
from fljax.core.values import COUNT, SEED, Field, checked, wrong

PyTree = Any
_COUNT = Field(None, int, COUNT)
_SEED = Field(0, int, SEED)


def k_means(
    k: int,
    low: Any = None,
    high: Any = None,
    *,
    steps: int = 10,
    centres: Any = None,
    init_seed: int = 0,
    weighting: str = "examples",
    weight_cap: float | None = None,
    like: jax.ShapeDtypeStruct = jax.ShapeDtypeStruct((2,), jnp.float32),  # noqa: B008
) -> Query:
    """Returns the query of k centres.

    Args:
      k: How many.
      low, high: Bounds of values, numbers or lists of one for each feature; None for none, which
        differential privacy refuses.
      steps: Lloyd steps, a question each.
      centres: [k, features] to start from; None draws them uniformly between the bounds.
      init_seed: Of that draw.
      weighting, weight_cap: What a client's rows count; see `weighting.py`.
      like: Shape and type of a row, a vector.

    Raises:
      ValueError: If an argument is out of range, or there are neither centres nor bounds.

    Example:
      >>> query = k_means(3, low=-1, high=1, steps=5, weight_cap=1)
      >>> query.questions, round(query.sensitivity, 3)
      (5, 1.732)
    """
    if len(like.shape) != 1:
        raise ValueError(
            f"k_means asks for rows that are vectors, and these have the shape {list(like.shape)}."
        )
    k, steps = checked("k", k, _COUNT), checked("steps", steps, _COUNT)
    bounds = checked_range(low, high, like.shape)
    counted = checked_weighting(weighting, weight_cap)
    first = _first_centres(k, bounds, centres, checked("init_seed", init_seed, _SEED))
    return _lloyd(first, bounds, counted, steps)


def _first_centres(k: int, bounds: Range, centres: Any, seed: int) -> np.ndarray:
    """Returns float64[k, features] in the units of what is sent."""
    if centres is not None:
        try:
            given = np.asarray(centres, np.float64).reshape(k, *bounds.shape)
        except (TypeError, ValueError):
            what = f"a list of {k} lists of {bounds.shape[0]} numbers"
            raise wrong("centres", centres, what) from None
        return (given - bounds.middle) / bounds.half
    if not bounds.is_bounded:
        raise ValueError(
            "k_means starts from centres between low and high. Give these, or centres."
        )
    return random.generator(seed, "analytics/k_means").uniform(-1, 1, (k, *bounds.shape))


def _lloyd(first: np.ndarray, bounds: Range, counted: Weighting, steps: int) -> Query:
    wide = jax.dtypes.canonicalize_dtype(float)
    k = len(first)

    def start(centres, job):
        del job
        return {"sums": jnp.zeros_like(centres), "counts": jnp.zeros(k, jnp.int32)}

    def fold(centres, carry, values, mask, job):
        del job
        rows = jnp.where(mask[:, None], bounds.scaled(values), 0)
        # the squares of rows are the same for all centres
        nearest = (jnp.square(centres).sum(1) - 2 * rows @ centres.T).argmin(1)
        own = (nearest[:, None] == jnp.arange(k)) & mask[:, None]
        sums = carry["sums"] + own.astype(wide).T @ rows
        return {"sums": sums, "counts": carry["counts"] + own.sum(0, dtype=jnp.int32)}

    def send(centres, carry, job):
        del centres, job
        return counted.of(carry, carry["counts"].sum())

    def follow(centres, total):
        counts = total["counts"][:, None]
        moved = total["sums"] / jnp.maximum(counts, 1e-300)
        if bounds.is_bounded:
            moved = jnp.clip(moved, -1, 1)
        least = 1.0 if counted.is_plain else 1e-9
        return jnp.where(counts >= least, moved, centres)

    def answer(centres, total, asked: Asked) -> Answer:
        def of(total):
            return bounds.middle + bounds.half * np.asarray(follow(centres, total))

        counts = np.maximum(np.asarray(total["counts"], np.float64), 1e-300)[:, None]
        means = np.asarray(total["sums"]) / counts

        def of_noise(std):
            return np.abs(bounds.half) * std * np.sqrt(1 + means**2) / counts

        error, theory = standard_error(of, asked, of_noise)
        name = "rows" if counted.is_plain else "weight"
        details = {
            f"{name} of each centre": counts[:, 0] / asked.share,
            "moved": np.abs(of(total) - bounds.middle - bounds.half * np.asarray(centres)).max(),
        }
        return Answer(of(total), error, "value", f"{theory}; of the last step", details)

    norm = bounds.norm()
    return Query(
        "k_means",
        {
            "sums": jax.ShapeDtypeStruct(first.shape, wide),
            "counts": jax.ShapeDtypeStruct((k,), counted.count_type),
        },
        jnp.asarray(first, wide),
        start,
        fold,
        send,
        follow,
        answer,
        questions=steps,
        sensitivity=norm * counted.most,
        bounds=CAPS if bounds.is_bounded else f"{BOUNDS}, and {CAPS}",
        largest=counted.most if bounds.is_bounded else math.inf,
    )
