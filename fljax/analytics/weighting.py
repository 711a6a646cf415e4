"""Weighs the rows of a client: all alike, up to a bound, or one client like another.

With c_i rows in client i, a statistic is a sum of w_i times the sums over clients' rows:

    "examples"                  w_i = 1                      that of all rows together
    "examples", weight_cap=W    w_i = min(1, W / c_i)        no client counts for more than W rows
    "uniform"                   w_i = 1 / c_i                the mean of clients' own distributions

Under differential privacy of users the first has no bound: a client may hold any number of rows.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fljax.core.values import POSITIVE, Field, checked

PyTree = Any
_KINDS = Field("examples", str, ("examples", "uniform"))
_CAP = Field(None, float, POSITIVE, optional=True)


class Weighting(NamedTuple):
    """The weight of the rows of a client.

    Attributes:
      kind: "examples" or "uniform".
      cap: What a client's rows count at most, or None.
    """

    kind: str
    cap: float | None

    @property
    def most(self) -> float:
        """The most that the rows of one client count together."""
        if self.kind == "uniform":
            return 1.0
        return math.inf if self.cap is None else self.cap

    @property
    def is_plain(self) -> bool:
        """True where every row counts as 1, so that counts are whole numbers."""
        return self.kind == "examples" and self.cap is None

    @property
    def count_type(self) -> Any:
        """The type of numbers that count rows."""
        return jnp.dtype(jnp.int32) if self.is_plain else jax.dtypes.canonicalize_dtype(float)

    def of(self, sums: PyTree, rows: jax.Array) -> PyTree:
        """Returns a client's sums as they count.

        Args:
          sums: Over its rows.
          rows: int32[], how many these are.
        """
        if self.is_plain:
            return sums
        rows = jnp.maximum(rows, 1).astype(jnp.result_type(float))
        factor = 1 / rows if self.kind == "uniform" else jnp.minimum(1, self.cap / rows)
        return jax.tree.map(lambda leaf: leaf * factor, sums)


def checked_weighting(weighting: str, weight_cap: float | None) -> Weighting:
    """Returns how rows count; raises ValueError for what is no such rule.

    Example:
      >>> checked_weighting("examples", 5).most, checked_weighting("uniform", None).most
      (5.0, 1.0)
    """
    kind = checked("weighting", weighting, _KINDS)
    cap = checked("weight_cap", weight_cap, _CAP)
    if kind == "uniform" and cap is not None:
        raise ValueError(
            f"weight_cap = {cap:g} has no effect with weighting = 'uniform', where each client "
            "counts as 1. Leave one of them out."
        )
    return Weighting(kind, cap)


CAPS = "weight_cap, what the rows of one client count at most (or weighting='uniform')"
