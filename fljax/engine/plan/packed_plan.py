"""A round plan as it travels: one array, since each transfer costs time of its own."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from typing import Any

import jax
import numpy as np

from fljax.engine.plan.round_plan import RoundPlan


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=("numbers", "staged"), meta_fields=("layout",)
)
@dataclasses.dataclass(frozen=True)
class PackedPlan:
    """A round plan on its way to the devices: one array to send instead of some twenty.

    Attributes:
      numbers: int32[D, K] everything but the staged rows, one array behind the other.
      staged: As in the `RoundPlan`.
      layout: How `unpack` finds the arrays again; the same for plans of equal shapes.
    """

    numbers: Any
    staged: dict[str, Any] | None
    layout: Any


def pack(plan: RoundPlan) -> PackedPlan:
    """Returns a plan of NumPy arrays as one array a device; see `unpack`."""
    devices = len(plan.passes[0].num_waves)
    of_all = (plan.round, plan.cohort_index, plan.newest)
    leaves, tree = jax.tree.flatten((plan.passes, *(np.array([one] * devices) for one in of_all)))
    numbers = np.concatenate([_words(leaf.reshape(devices, -1)) for leaf in leaves], axis=1)
    shapes = tuple((leaf.shape[1:], leaf.dtype) for leaf in leaves)
    return PackedPlan(numbers, plan.staged, (tree, shapes))


def unpack(plan: PackedPlan) -> RoundPlan:
    """Returns one device's part of a packed plan, without the axis of devices.

    Args:
      plan: With leaves [1, ...], as `jax.shard_map` hands them to a device.
    """
    tree, shapes = plan.layout
    ends = list(itertools.accumulate(math.prod(shape) for shape, _ in shapes))
    parts = [plan.numbers[0, start:end] for start, end in itertools.pairwise([0, *ends])]
    leaves = [
        _values(part.reshape(shape), dtype)
        for part, (shape, dtype) in zip(parts, shapes, strict=True)
    ]
    passes, round, cohort_index, newest = jax.tree.unflatten(tree, leaves)
    staged = jax.tree.map(lambda leaf: leaf[0], plan.staged)
    return RoundPlan(round, passes, cohort_index, staged, newest)


def _words(leaf: np.ndarray) -> np.ndarray:
    """Returns whole numbers as int32, and of float32 the bits."""
    return leaf.view(np.int32) if leaf.dtype == np.float32 else leaf.astype(np.int32, copy=False)


def _values(words: jax.Array, dtype: np.dtype) -> jax.Array:
    """Returns what `_words` was given."""
    if dtype == np.float32:
        return jax.lax.bitcast_convert_type(words, np.float32)
    return words.astype(dtype)
