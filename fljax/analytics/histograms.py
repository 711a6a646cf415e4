"""The histogram of the rows of all clients, in cells of equal width."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fljax.analytics.counting import counting_query
from fljax.analytics.errors import standard_error
from fljax.analytics.query import SCALAR, Answer, Asked, Query
from fljax.analytics.ranges import checked_range
from fljax.analytics.weighting import checked_weighting
from fljax.core.values import COUNT, Field, checked

_BINS = Field(10, int, COUNT)


def histogram(
    low: float,
    high: float,
    bins: int = 10,
    *,
    weighting: str = "examples",
    weight_cap: float | None = None,
    like: jax.ShapeDtypeStruct = SCALAR,
) -> Query:
    """Returns the query of how many rows lie in each of some cells between two bounds.

    As in NumPy a cell holds its lower edge, and the last one its upper edge as well. Rows outside
    are counted on either side.

    Args:
      low, high: Bounds of the cells.
      bins: How many cells there are.
      weighting, weight_cap: What a client's rows count; see `weighting.py`.
      like: Shape and type of a row, which is a number.

    Raises:
      ValueError: If an argument is out of range, or rows are no numbers.

    Example:
      >>> query = histogram(0, 1, bins=4, weight_cap=2)
      >>> query.message["counts"].shape, query.sensitivity
      ((6,), 2.0)
    """
    check_scalar("histogram", like)
    bins, counted = checked("bins", bins, _BINS), checked_weighting(weighting, weight_cap)
    cells = cell_finder(low, high, bins)

    def answer(question, total, asked: Asked) -> Answer:
        del question
        scale = 1 / asked.share

        def of(total):
            return np.asarray(total["counts"], np.float64)[1:-1] * scale

        error, theory = standard_error(of, asked, lambda std: np.full(bins, std * scale))
        below, above = (float(total["counts"][place]) * scale for place in (0, -1))
        edges = np.linspace(low, high, bins + 1)
        details = {"edges": edges, "below": below, "above": above}
        return Answer(of(total), error, "rows" if counted.is_plain else "weight", theory, details)

    return counting_query("histogram", cells, bins + 2, counted, answer)


def cell_finder(low: float, high: float, bins: int) -> Any:
    """Returns values[B] -> int32[B]: 0 below, 1 to `bins` for the cells, and bins + 1 above.

    Raises:
      ValueError: For bounds that are not ascending and finite.

    Example:
      >>> cell_finder(0, 1, 4)(jnp.array([-1.0, 0.0, 0.25, 1.0, 1.5])).tolist()
      [0, 1, 2, 4, 5]
    """
    bounds = checked_range(low, high)
    if not bounds.is_bounded:
        raise ValueError("A histogram needs low and high, the bounds of its cells.")
    low, high = float(bounds.low), float(bounds.high)
    edges = np.linspace(low, high, bins + 1)

    def cells(values: jax.Array) -> jax.Array:
        values = values.astype(jnp.result_type(float))
        table = jnp.asarray(edges, values.dtype)
        place = jnp.clip(jnp.floor((values - low) / (high - low) * bins), 0, bins - 1)
        place = place.astype(jnp.int32)
        # as the edges say, whatever the quotient was rounded to
        place -= (values < table[place]) & (place > 0)
        place += (values >= table[place + 1]) & (place < bins - 1)
        return jnp.where(values < low, 0, jnp.where(values > high, bins + 1, place + 1))

    return cells


def check_scalar(name: str, like: jax.ShapeDtypeStruct) -> None:
    """Raises ValueError where rows are no numbers.

    Example:
      >>> check_scalar("histogram", SCALAR)
    """
    if like.shape:
        raise ValueError(
            f"{name} asks for rows that are numbers, and these have the shape "
            f"{list(like.shape)}. Name one of their features as the column, such as 'x[0]'."
        )
