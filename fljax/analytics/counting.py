"""Counts rows by cell, and makes queries whose messages are such counts."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from fljax.analytics.query import Answer, Asked, Query, unchanged
from fljax.analytics.weighting import CAPS, Weighting

PyTree = Any
# Cells of a batch up to which comparing each row with each cell is faster than writing row by row.
_COMPARED = 2**16


def counts(cells: jax.Array, mask: jax.Array, size: int) -> jax.Array:
    """Returns int32[size], how many rows lie in each cell.

    Args:
      cells: int[B] cell of each row, or [B, D] of several.
      mask: bool[B], which rows count.
      size: How many cells there are; rows of others do not count.

    Example:
      >>> counts(jnp.array([2, 0, 2, 1]), jnp.array([True, True, True, False]), 3).tolist()
      [1, 0, 2]
    """
    mask = jnp.broadcast_to(mask.reshape(-1, *(1,) * (cells.ndim - 1)), cells.shape).reshape(-1)
    cells = cells.reshape(-1)
    if cells.size * size <= _COMPARED:
        hits = (cells[:, None] == jnp.arange(size)) & mask[:, None]
        return hits.sum(0, dtype=jnp.int32)
    where = jnp.where(mask & (cells >= 0), cells, size)
    return jnp.zeros(size, jnp.int32).at[where].add(1, mode="drop")


def counting_query(
    name: str,
    cells_of: Callable[[jax.Array], jax.Array],
    size: int,
    weighting: Weighting,
    answer: Callable[[PyTree, PyTree, Asked], Answer],
    cells_a_row: int = 1,
) -> Query:
    """Returns the query of how many rows lie in each cell.

    Args:
      name: Of the query.
      cells_of: values[B, ...] -> int[B] or int[B, cells_a_row], the cells of each row, different
        ones.
      size: How many cells there are.
      weighting: What a client's rows count.
      answer: As of a `Query`, of a total {"counts": float[size]}.
      cells_a_row: In how many cells a row counts.

    Example:
      >>> from fljax.analytics.weighting import checked_weighting
      >>> thirds = lambda values: (3 * values).astype(jnp.int32)
      >>> query = counting_query("thirds", thirds, 3, checked_weighting("uniform", None), None)
      >>> query.sensitivity, query.message["counts"].shape
      (1.0, (3,))
    """

    def start(question, job):
        del question, job
        return {"counts": jnp.zeros(size, jnp.int32), "rows": jnp.zeros((), jnp.int32)}

    def fold(question, carry, values, mask, job):
        del question, job
        more = counts(cells_of(values), mask, size)
        rows = carry["rows"] + mask.sum(dtype=jnp.int32)
        return {"counts": carry["counts"] + more, "rows": rows}

    def send(question, carry, job):
        del question, job
        return weighting.of({"counts": carry["counts"]}, carry["rows"])

    return Query(
        name,
        {"counts": jax.ShapeDtypeStruct((size,), weighting.count_type)},
        (),
        start,
        fold,
        send,
        unchanged,
        answer,
        # all rows of a client may lie in the same cells
        sensitivity=weighting.most * math.sqrt(cells_a_row),
        bounds=CAPS,
        largest=weighting.most,
        whole=weighting.is_plain,
    )
