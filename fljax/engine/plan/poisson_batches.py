"""Poisson batches: each row is in each batch by itself, with one probability.

This is the sampling that the accountants of DP-SGD have theorems for (Abadi et al. 2016,
arXiv:1607.00133). Which rows a batch has depends on (seed, round, client, occurrence, step) alone.
"""

from __future__ import annotations

import numpy as np
import scipy

from fljax.core import random

# A batch that is larger than its capacity is cut; rarer than this.
_RARE = 1e-20


def capacity(sizes: np.ndarray, batch_size: np.ndarray | int) -> int:
    """Returns how many rows the batches of all clients have room for.

    Args:
      sizes: int64[N] rows of each client.
      batch_size: Rows of a batch on average, or int64[N].

    Returns:
      The smallest number that none of the clients' batches exceeds but for one in 10^20.

    Example:
      >>> capacity(np.array([100, 5, 0]), 20)
      62
    """
    pairs = np.stack(np.broadcast_arrays(np.maximum(sizes, 1), batch_size))
    rows, batch = np.unique(pairs, axis=1)
    rate = rate_of(rows, batch)
    # between these lies the smallest sufficient number
    low, high = np.zeros(len(rows), np.int64), rows.copy()
    while (low < high).any():
        middle = (low + high) // 2
        more = scipy.special.betainc(middle + 1, rows - middle, rate)
        fits = more < _RARE
        low, high = np.where(fits, low, middle + 1), np.where(fits, middle, high)
    return int(high.max())


def rate_of(sizes: np.ndarray, batch_size: np.ndarray | int) -> np.ndarray:
    """Returns float64 like `sizes`, the probability that a row is in a batch.

    Example:
      >>> rate_of(np.array([100, 5]), 20).tolist()
      [0.2, 1.0]
    """
    return np.minimum(batch_size / np.maximum(sizes, 1), 1.0)


def draw(words: np.ndarray, sizes: np.ndarray, rates: np.ndarray, most: int) -> tuple:
    """Draws batches.

    The gaps between the rows of a batch are geometric, so that what is drawn follows the batch and
    not the client's rows.

    Args:
      words: uint64[S] random words, one a batch.
      sizes: int64[S] rows of the batch's client.
      rates: float64[S] probability of each row.
      most: B, the capacity.

    Returns:
      (positions int64[S, B] of rows in ascending order, padding repeating the first; counts
      int32[S]).
    """
    uniforms = random.as_uniform(random.fold_in(words[:, None], np.arange(most)))
    with np.errstate(divide="ignore"):
        gaps = np.log(uniforms) / np.log1p(-rates)[:, None]
    # a gap beyond the last row ends the batch, however long it is
    gaps = np.minimum(gaps, sizes[:, None]).astype(np.int64)
    positions = (gaps + 1).cumsum(1) - 1
    counts = (positions < sizes[:, None]).sum(1)
    first = np.where(counts > 0, positions[:, 0], 0)
    positions = np.where(np.arange(most) < counts[:, None], positions, first[:, None])
    return positions, counts.astype(np.int32)
