"""Ranges of values: what lies outside is moved to its bounds, and what is inside gets a scale of 1.

Under differential privacy a sum needs rows that are bounded. A row x counts as

    u = (min(max(x, low), high) - middle) / half,    |u| <= 1

so that one clip norm fits all numbers of a message.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fljax.core.values import wrong


class Range(NamedTuple):
    """The bounds of values; None where there are none.

    Attributes:
      low, high: float64 in the shape of a row, or None.
      shape: Of a row.
    """

    low: np.ndarray | None
    high: np.ndarray | None
    shape: tuple[int, ...]

    @property
    def is_bounded(self) -> bool:
        """Says whether there are bounds."""
        return self.low is not None

    @property
    def middle(self) -> np.ndarray:
        """float64 in the shape of a row: what counts as 0."""
        return (self.low + self.high) / 2 if self.is_bounded else np.zeros(self.shape)

    @property
    def half(self) -> np.ndarray:
        """float64 in the shape of a row: the unit of what is sent."""
        return (self.high - self.low) / 2 if self.is_bounded else np.ones(self.shape)

    def scaled(self, values: jax.Array) -> jax.Array:
        """Returns rows within the bounds, as numbers from -1 to 1; without bounds as they are."""
        values = values.astype(jnp.result_type(float))
        if not self.is_bounded:
            return values
        return (jnp.clip(values, self.low, self.high) - self.middle) / self.half

    def norm(self, powers: int = 1) -> float:
        """Returns the largest norm of (1, u, u^2, ...) of a row, up to a power."""
        return math.sqrt(1 + powers * math.prod(self.shape)) if self.is_bounded else math.inf


BOUNDS = "low and high, between which values count (others are moved to the nearer one)"


def checked_range(low: object, high: object, shape: tuple[int, ...] = ()) -> Range:
    """Returns the range between two bounds, numbers or lists of one for each feature.

    Raises:
      ValueError: For one bound without the other, or bounds that are not ascending and finite.

    Example:
      >>> checked_range(0, 10).scaled(jnp.array([5.0, 99.0])).tolist()
      [0.0, 1.0]
    """
    if low is None and high is None:
        return Range(None, None, shape)
    if low is None or high is None:
        missing = "low" if low is None else "high"
        raise ValueError(f"low = {low}, high = {high}: give {missing} too, or neither.")
    found = []
    for name, bound in (("low", low), ("high", high)):
        try:
            array = np.asarray(bound, np.float64)
            found.append(np.broadcast_to(array, shape).copy())
        except (TypeError, ValueError):
            what = "a number" if not shape else f"a number, or a list of {shape[0]} of them"
            raise wrong(name, bound, what) from None
    if not (np.isfinite(found).all() and (found[0] < found[1]).all()):
        raise ValueError(f"low = {low}, high = {high}: low must be below high, and both finite.")
    return Range(found[0], found[1], shape)
