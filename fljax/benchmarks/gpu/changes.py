"""Compares what runs in different processes have made of the same initial weights.

After a few rounds a model is mostly its initial weights, so sums over the weights hardly tell one
run from another. What is compared is the change, leaf by leaf, by a sketch of it: its norm, and
its sums under fixed random signs. The mean square of such a sum is the square of the norm, whatever
the vector; so the sums of two changes are as far apart, in root mean square, as the changes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

# enough for the distance to be right to a quarter, nearly always
_SUMS = 32

Sketch = Mapping[str, Sequence[float]]


def sketch(before: Any, after: Any) -> dict[str, list[float]]:
    """Returns {path: [norm, sum, ...]} of the changes of the leaves of a tree, in float64.

    Args:
      before: A tree of arrays.
      after: One of the same structure and shapes.
    """
    changes = jax.tree.map(
        lambda old, new: np.asarray(new, np.float64) - np.asarray(old, np.float64), before, after
    )
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): _sketch_of_leaf(change.ravel())
        for path, change in jax.tree.leaves_with_path(changes)
    }


def _sketch_of_leaf(change: np.ndarray) -> list[float]:
    random, total = np.random.default_rng(0), change.sum()
    negative = (random.integers(2, size=change.size, dtype=bool) for _ in range(_SUMS))
    sums = [total - 2 * change[where].sum() for where in negative]
    return [float(np.linalg.norm(change)), *map(float, sums)]


def farthest_leaf(found: Sketch, expected: Sketch) -> tuple[str, float]:
    """Returns the leaf whose change differs most, and by what share of the norm of its change.

    Args:
      found: The sketch of a run.
      expected: The one that it is held against; its norms are what the shares are of.

    Returns:
      (path, share); the share is infinite where a leaf is absent, or either is not finite.
    """
    shares = {path: _share(found.get(path), expected.get(path)) for path in {**expected, **found}}
    return max(shares.items(), key=lambda item: item[1])


def _share(found: Sequence[float] | None, expected: Sequence[float] | None) -> float:
    if found is None or expected is None or not np.isfinite([*found, *expected]).all():
        return math.inf
    apart = np.subtract(found, expected)
    distance = max(abs(apart[0]), np.sqrt(np.mean(apart[1:] ** 2)))
    if not distance:
        return 0.0
    return float(distance / expected[0]) if expected[0] else math.inf
