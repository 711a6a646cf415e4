"""Judges representations by labels that they were not trained with, on the host."""

from __future__ import annotations

import numpy as np

# Rows whose similarities to all others are held at once.
_BLOCK = 1024


def nearest_neighbors(vectors: np.ndarray, labels: np.ndarray, neighbors: int) -> float:
    """Returns the share of rows whose label is that of most of their nearest other rows.

    Args:
      vectors: float[rows, D]; their dot products say how similar rows are.
      labels: int[rows].
      neighbors: How many of the nearest vote; of equal votes, the smaller label wins. Rows that
        are not finite have no vote, and are wrong themselves.

    Returns:
      A number from 0 to 1; NaN of fewer than two rows.

    Example:
      >>> vectors = np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]])
      >>> nearest_neighbors(vectors, np.array([0, 0, 1, 1]), neighbors=1)
      1.0
    """
    if len(vectors) < 2:
        return float("nan")
    neighbors = min(neighbors, len(vectors) - 1)
    _, labels = np.unique(labels, return_inverse=True)
    finite, right = np.isfinite(vectors).all(1), 0
    for start in range(0, len(vectors), _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, len(vectors)))
        with np.errstate(invalid="ignore"):
            similar = vectors[rows] @ vectors.T
        similar = np.where(finite[rows, None] & finite, similar, -np.inf)
        similar[np.arange(len(rows)), rows] = -np.inf
        nearest = np.argpartition(-similar, neighbors - 1, axis=1)[:, :neighbors]
        has_vote = np.take_along_axis(similar, nearest, 1) > -np.inf
        votes = np.zeros((len(rows), labels.max() + 1), np.int64)
        np.add.at(votes, (np.arange(len(rows))[:, None], labels[nearest]), has_vote)
        right += int(((votes.argmax(1) == labels[rows]) & has_vote.any(1)).sum())
    return right / len(vectors)
