"""Counting within groups, without a loop over the groups."""

from __future__ import annotations

import numpy as np


def ranges(lengths: np.ndarray) -> np.ndarray:
    """Returns 0 .. length - 1 for each length, one range behind the other: int64[sum]."""
    ends = lengths.cumsum()
    total = int(ends[-1]) if len(ends) else 0
    return np.arange(total) - (ends - lengths).repeat(lengths)


def earlier_equals(keys: np.ndarray) -> np.ndarray:
    """Returns for each entry how many equal entries stand before it: int64[len(keys)]."""
    count = np.zeros(len(keys), np.int64)
    ordered = np.sort(keys)
    repeated = ordered[1:] == ordered[:-1]
    if repeated.any():
        order = keys.argsort(kind="stable")
        begins = np.flatnonzero(np.concatenate([[True], ~repeated]))
        count[order] = ranges(np.diff(begins, append=len(keys)))
    return count
