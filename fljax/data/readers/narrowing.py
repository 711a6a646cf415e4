"""Brings columns of numbers into the type in which JAX holds them, and says which would not fit."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fljax.core.archives import refused
from fljax.data.readers.columns import refused_at
from fljax.data.readers.tables import Batch
from fljax.data.values import held_type


@dataclasses.dataclass
class Columns:
    """Observations of some columns, batch after batch.

    Attributes:
      names: Of the columns.
      first: float64[columns] the first row, or None before it.
      differs: bool[columns] whether a value is another than the first one.
      remains: The same of what JAX holds of them.
    """

    names: Sequence[str]
    first: np.ndarray | None = None
    differs: np.ndarray | bool = False
    remains: np.ndarray | bool = False


def narrowed(seen: Columns, batch: Batch, values: np.ndarray) -> np.ndarray:
    """Returns the rows of a batch in the type in which JAX holds floats.

    Args:
      seen: Changed in place.
      batch: Where they come from.
      values: float64[R, columns].

    Raises:
      ValueError: If a value is beyond that type; says where.
    """
    target = held_type(np.float64)
    with np.errstate(over="ignore"):
        held = values.astype(target)
    if not np.isfinite(held).all():
        row, column = np.argwhere(~np.isfinite(held))[0].tolist()
        raise refused_at(
            batch, seen.names[column], row, f"is {values[row, column]:g}, beyond {target}, in "
            "which JAX holds it: scale it, such as by standardize=True",
        )  # fmt: skip
    if len(values) and seen.first is None:
        seen.first = values[0]
    if seen.first is not None:
        seen.differs |= (values != seen.first).any(0)
        seen.remains |= (held != seen.first.astype(target)).any(0)
    return held


def check_differences(seen: Columns, path: Path) -> None:
    """Raises ValueError where the values of a column differ, and no more when JAX holds them."""
    merged = np.flatnonzero(np.atleast_1d(seen.differs) & ~np.atleast_1d(seen.remains))
    if merged.size:
        column = int(merged[0])
        raise refused(
            path,
            f"column {seen.names[column]!r}: its values differ, but are all "
            f"{seen.first[column]:g} in {held_type(np.float64)}, in which JAX holds them: subtract "
            "their mean first, such as by standardize=True",
        )
