"""The hierarchical histogram: counts of all ranges, not only of cells, under little noise.

Hay et al. 2010 ("Boosting the accuracy of differentially private histograms through consistency",
arXiv:0904.0942). The cells are the leaves of a tree in which each node has k children; clients
count their rows in the nodes of all l levels, root included. Of noisy counts h the least-squares
estimate that adds up is, with i the height of a node, 1 for leaves (Theorem 3),

    z[v] = h[v] for a leaf, else (k^i - k^(i-1)) / (k^i - 1) h[v] + (k^(i-1) - 1) / (k^i - 1)
           sum of z over its children                                              (upwards)
    c[v] = z[v] for the root, else z[v] + 1/k (c[parent] - sum of z over the parent's children)

Its error: the normal equations of all levels have the eigenvalues 1 + k + ... + k^j, for leaves
that are equal within subtrees of height j + 1 and add up to zero in those of height j + 2. A range
is a sum of few nodes, where a flat histogram adds up as many noises as it has cells.

The paper adds Laplace noise; least squares are the same for any noise of equal variance.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np

from fljax.analytics.counting import counting_query
from fljax.analytics.errors import standard_error
from fljax.analytics.histograms import cell_finder, check_scalar
from fljax.analytics.query import SCALAR, Answer, Asked, Query
from fljax.analytics.weighting import checked_weighting
from fljax.core.values import Field, Interval, checked

_FANOUT = Field(2, int, Interval(2))
_LEVELS = Field(4, int, Interval(1, 24))
_MOST_CELLS = 2**24


def hierarchical_histogram(
    low: float,
    high: float,
    levels: int = 6,
    branching: int = 2,
    *,
    weighting: str = "examples",
    weight_cap: float | None = None,
    like: jax.ShapeDtypeStruct = SCALAR,
) -> Query:
    """Returns the query of a histogram whose ranges, too, have small errors.

    Args:
      low, high: Bounds of the cells; rows outside count nowhere.
      levels: Of the tree below its root: there are branching^levels cells.
      branching: Children of a node.
      weighting, weight_cap: What a client's rows count; see `weighting.py`.
      like: Shape and type of a row, which is a number.

    Raises:
      ValueError: If an argument is out of range, or rows are no numbers.

    Example:
      >>> query = hierarchical_histogram(0, 1, levels=3, weight_cap=1)
      >>> query.message["counts"].shape, query.sensitivity
      ((15,), 2.0)
    """
    check_scalar("hierarchical_histogram", like)
    levels, branching = checked("levels", levels, _LEVELS), checked("branching", branching, _FANOUT)
    counted, bins = checked_weighting(weighting, weight_cap), branching**levels
    if bins > _MOST_CELLS:
        raise ValueError(
            f"branching = {branching} and levels = {levels} make {bins:,} cells, and a message has "
            f"room for {_MOST_CELLS:,}. Lower one of them."
        )
    find = cell_finder(low, high, bins)
    begins = level_begins(levels, branching)

    def nodes(values: jax.Array) -> jax.Array:
        leaf = find(values) - 1
        inside = (leaf >= 0) & (leaf < bins)
        spans = np.array([branching ** (levels - level) for level in range(levels + 1)])
        found = leaf[:, None] // spans + np.array(begins[:-1])
        return jnp.where(inside[:, None], found, -1)

    def answer(question, total, asked: Asked) -> Answer:
        del question
        scale = 1 / asked.share

        def of(total):
            noisy = np.asarray(total["counts"], np.float64) * scale
            return consistent(noisy, levels, branching)[begins[levels] :]

        one = np.zeros(bins)
        one[0] = 1
        unit = math.sqrt(range_variance(one, levels, branching))
        error, theory = standard_error(of, asked, lambda std: np.full(bins, std * scale * unit))
        noise = None if asked.noise is None else asked.noise * scale
        details = {
            "edges": np.linspace(low, high, bins + 1),
            "levels": levels,
            "branching": branching,
            "noise of a node": noise,
        }
        return Answer(of(total), error, "rows" if counted.is_plain else "weight", theory, details)

    return counting_query(
        "hierarchical_histogram", nodes, begins[-1], counted, answer, cells_a_row=levels + 1
    )


def level_begins(levels: int, branching: int) -> list[int]:
    """Returns where each level begins among all nodes, the root first, and where the last ends.

    Example:
      >>> level_begins(3, 2)
      [0, 1, 3, 7, 15]
    """
    return [(branching**level - 1) // (branching - 1) for level in range(levels + 2)]


def consistent(noisy: np.ndarray, levels: int, branching: int) -> np.ndarray:
    """Returns float64 counts of all nodes that add up, nearest to noisy ones in least squares.

    Args:
      noisy: float64[nodes], level after level, the root first.
      levels: Of the tree below its root.
      branching: Children of a node.

    Example:
      >>> consistent(np.array([10.0, 3.0, 4.0]), levels=1, branching=2).tolist()
      [9.0, 4.0, 5.0]
    """
    begins, k = level_begins(levels, branching), branching
    parts = [noisy[begins[level] : begins[level + 1]] for level in range(levels + 1)]
    upward = [parts[levels]]
    for level in range(levels - 1, -1, -1):
        height = levels - level + 1
        whole, below = k**height - 1, k ** (height - 1) - 1
        of_children = upward[0].reshape(-1, k).sum(1)
        upward.insert(0, ((whole - below) * parts[level] + below * of_children) / whole)
    found = [upward[0]]
    for level in range(1, levels + 1):
        own = upward[level].reshape(-1, k)
        gap = (found[-1] - own.sum(1)) / k
        found.append((own + gap[:, None]).reshape(-1))
    return np.concatenate(found)


def range_variance(weights: np.ndarray, levels: int, branching: int) -> float:
    """Returns the variance of a weighted sum of consistent leaves, where a node's noise has 1.

    Args:
      weights: float64[leaves], such as ones in a range and zeros elsewhere.
      levels: Of the tree below its root.
      branching: Children of a node.

    Example:
      >>> round(float(range_variance(np.array([1.0, 1.0]), levels=1, branching=2)), 3)
      0.667
    """
    found, eigenvalue = 0.0, 0.0
    fine = np.asarray(weights, np.float64)
    for height in range(levels + 1):
        size = branching**height
        eigenvalue += size
        if height == levels:
            return found + fine.sum() ** 2 * size / eigenvalue
        # means of subtrees of one height, as far as they differ from those of the next
        coarse = fine.reshape(-1, branching).mean(1)
        rest = fine.reshape(-1, branching) - coarse[:, None]
        found += np.square(rest).sum() * size / eigenvalue
        fine = coarse
    return found
