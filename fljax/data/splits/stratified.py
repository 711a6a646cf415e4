"""Draws test rows of data that have no test file: the same share of each class."""

from __future__ import annotations

import numpy as np

from fljax.core import random
from fljax.core.settings import DATA
from fljax.core.values import Field, Interval, checked

_SHARE = Field(0.2, float, Interval(0, 1, low_open=True, high_open=True))


def stratified(labels: np.ndarray, fraction: float, seed: int, purpose: str) -> np.ndarray:
    """Returns bool[rows], true for a share of each class, rounded to whole rows.

    Args:
      labels: [rows] the class of each row.
      fraction: The share, in (0, 1).
      seed: Chooses the rows.
      purpose: Names the stream of random numbers, such as "digits/split".

    Raises:
      ValueError: If the share or the seed is out of range.
    """
    fraction = checked("test_fraction", fraction, _SHARE)
    seed = checked("split_seed", seed, DATA["data_seed"])
    rng = random.generator(seed, purpose)
    chosen = np.zeros(labels.size, bool)
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        chosen[rows[: round(fraction * rows.size)]] = True
    return chosen
