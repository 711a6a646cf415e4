"""Thins curves of thousands of points to what a drawing shows, and keeps their extremes."""

from __future__ import annotations

import numpy as np


def thinned(y: np.ndarray, most: int) -> np.ndarray:
    """Chooses the points of a curve that are drawn.

    The first and the last one stay, and of each stretch between them, all about equally long, the
    lowest and the highest: a single round in which a loss leaps up is still seen.

    Args:
      y: float64[n], finite.
      most: The number of points that may stay, at least 4.

    Returns:
      int64[m] ascending places, m <= max(most, 4); all of them where n <= most.

    Example:
      >>> y = np.zeros(1000)
      >>> y[437] = 5.0
      >>> kept = thinned(y, 10)
      >>> len(kept) <= 10, 437 in kept, kept[0], kept[-1]
      (True, True, np.int64(0), np.int64(999))
    """
    count, most = len(y), max(most, 4)
    if count <= most:
        return np.arange(count)
    edges = np.linspace(1, count - 1, (most - 2) // 2 + 1).astype(np.int64)
    kept = [0, count - 1]
    for start, stop in zip(edges[:-1], edges[1:], strict=True):
        stretch = y[start:stop]
        kept += [start + int(stretch.argmin()), start + int(stretch.argmax())]
    return np.unique(np.array(kept, np.int64))


def points_each(num_lines: int, budget: int, least: int = 24, most: int = 400) -> int:
    """Returns how many points each line of a page may have.

    Args:
      num_lines: Lines of all charts together.
      budget: Points of all of them together; `least` goes before it.
      least: Points of a line, however many lines there are.
      most: Points of a line, however few there are.

    Example:
      >>> points_each(10, 1000), points_each(10_000, 1000), points_each(1, 1000)
      (100, 24, 400)
    """
    return int(np.clip(budget // max(num_lines, 1), least, most))
