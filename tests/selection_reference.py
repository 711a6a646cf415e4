"""Selection and sketches, as plain NumPy in float64."""

from __future__ import annotations

import numpy as np


def top_k_reference(x: np.ndarray, k: int) -> np.ndarray:
    """Sorts by magnitude: NaN first, of equal ones those of lowest index first.

    Args:
      x: [d].
      k: Number of entries.

    Returns:
      int64[k] indices, ascending.
    """
    magnitude = np.abs(np.asarray(x, np.float64))
    order = np.lexsort((np.arange(x.size), -magnitude, ~np.isnan(magnitude)))
    return np.sort(order[:k])


def sketch_reference(
    x: np.ndarray, rotations: np.ndarray, signs: np.ndarray, patterns: np.ndarray
) -> np.ndarray:
    """Adds each coordinate to one column of each row, coordinate by coordinate.

    Args:
      x: [d].
      rotations: [blocks, rows], columns by which a block is moved.
      signs: [blocks, rows].
      patterns: [rows, columns] signs of the places in a block.

    Returns:
      float64[rows, columns].
    """
    rows, columns = patterns.shape
    table = np.zeros((rows, columns))
    for i, value in enumerate(np.asarray(x, np.float64)):
        for row in range(rows):
            column, sign = column_and_sign(i, row, rotations, signs, patterns)
            table[row, column] += sign * value
    return table


def unsketch_reference(
    table: np.ndarray, d: int, rotations: np.ndarray, signs: np.ndarray, patterns: np.ndarray
) -> np.ndarray:
    """Takes the median over rows of a coordinate's column times its sign; float64[d]."""
    estimates = np.empty((len(table), d))
    for i in range(d):
        for row in range(len(table)):
            column, sign = column_and_sign(i, row, rotations, signs, patterns)
            estimates[row, i] = sign * np.float64(table[row, column])
    return np.median(estimates, axis=0)


def column_and_sign(
    i: int, row: int, rotations: np.ndarray, signs: np.ndarray, patterns: np.ndarray
) -> tuple[int, float]:
    """Returns where a row of a sketch has coordinate i, and with which sign."""
    block, place = divmod(i, patterns.shape[1])
    column = (place + rotations[block, row]) % patterns.shape[1]
    return column, float(signs[block, row]) * float(patterns[row, place])
