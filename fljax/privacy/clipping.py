"""Clipping bounds the norm of what one client sends, and thereby what one client can change.

The whole message counts: an update, a model state, control variates. With all its numbers in one
vector x (McMahan et al. 2018, "Learning differentially private recurrent language models",
arXiv:1710.06963),

    flat          x min(1, C / |x|)
    per layer     the same of each of the L arrays, to C / sqrt(L), so that |x| <= C again

A message with a NaN or an infinity in it becomes zero. Norms are taken in units of the largest
number, so that no square overflows or vanishes. A client's weight w in the sum is capped at a
number W, by sending w's share min(1, W / w); so no client moves a sum by more than W C.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from fljax.core.trees import all_finite, beside
from fljax.core.values import Field, checked

__all__ = ["CLIPPING", "bounded", "check_clipping", "clipped", "within"]

PyTree = Any

CLIPPING = ("flat", "per_layer")


def check_clipping(clipping: str) -> None:
    """Raises ValueError unless the way of clipping is known.

    Example:
      >>> check_clipping("per_layer")
    """
    checked("clipping", clipping, Field("flat", str, CLIPPING))


def clipped(value: PyTree, clip_norm: jax.Array | float, clipping: str = "flat") -> PyTree:
    """Clips a value to a norm.

    Args:
      value: Arrays of numbers; integers and truth values become float32.
      clip_norm: What the norm of all of them is at most, up to rounding; infinity clips nothing.
      clipping: "flat", or "per_layer" for arrays that are clipped one by one, each to clip_norm /
        sqrt(number of arrays).

    Returns:
      The value, or zeros where a number in it is not finite.

    Example:
      >>> value = {"w": jnp.array([3.0, 0.0]), "b": jnp.array([4.0])}
      >>> jax.tree.map(lambda leaf: leaf.tolist(), clipped(value, 2.5))
      {'b': [2.0], 'w': [1.5, 0.0]}
      >>> clipped(jnp.array([3e38, -3e38]), 1.0)
      Array([ 0.70710677, -0.70710677], dtype=float32)
      >>> clipped(jnp.array([1.0, jnp.nan]), 1.0).tolist()
      [0.0, 0.0]
    """
    value = _floats(value)
    sound = all_finite(value)
    if clipping == "per_layer":
        share = clip_norm / math.sqrt(max(1, len(jax.tree.leaves(value))))
        value = jax.tree.map(lambda leaf: _clipped(leaf, share), value)
    else:
        value = _clipped(value, clip_norm)
    # a NaN times zero would stay one
    return jax.tree.map(lambda leaf: jnp.where(sound, leaf, 0), value)


def within(value: PyTree, clip_norm: jax.Array | float) -> jax.Array:
    """Returns whether flat clipping leaves a value as it is, as a bool scalar.

    Example:
      >>> bool(within(jnp.array([3.0, 4.0]), 5.0)), bool(within(jnp.array([3.0, 4.0]), 4.9))
      (True, False)
    """
    unit, norm = _norm(_floats(value))
    return norm <= clip_norm / unit


def _clipped(value: PyTree, clip_norm: jax.Array | float) -> PyTree:
    unit, norm = _norm(value)
    over = norm > clip_norm / unit
    scale = clip_norm / jnp.where(over, norm, 1)
    return jax.tree.map(
        lambda leaf: jnp.where(over, leaf / unit * scale, leaf).astype(leaf.dtype), value
    )


def _norm(value: PyTree) -> tuple[jax.Array, jax.Array]:
    """Returns (unit, norm of the value in this unit)."""
    leaves = [leaf for leaf in jax.tree.leaves(value) if leaf.size]
    if not leaves:
        return jnp.ones(()), jnp.zeros(())
    largest = jnp.stack([jnp.abs(leaf).max() for leaf in leaves]).max()
    # whose inverse, by which compilers may multiply, is a normal number too
    far = 2.0 ** int(0.8 * jnp.finfo(largest.dtype).maxexp)
    unit = jnp.clip(largest, 1 / far, far)
    return unit, jnp.sqrt(sum(jnp.square(leaf / unit).sum() for leaf in leaves))


def _floats(value: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.result_type(leaf, jnp.float32)), value)


def bounded(
    message: Mapping[str, PyTree],
    weights: Mapping[str, PyTree],
    clip_norm: jax.Array | float,
    weight_cap: jax.Array | float = 1.0,
    clipping: str = "flat",
) -> dict[str, PyTree]:
    """Clips a message, and scales it so that its weights in sums count up to a cap.

    Args:
      message: {name: value} of one client.
      weights: {name: weight}, each a number, or a tree that is a prefix of the value.
      clip_norm, clipping: Of the message without its weights.
      weight_cap: What weights count at most.

    Returns:
      {name: value}, whose sum under the weights has a norm of weight_cap * clip_norm at most.

    Example:
      >>> message, weights = {"update": jnp.array([3.0, 4.0])}, {"update": 20.0}
      >>> sent = bounded(message, weights, clip_norm=2.5, weight_cap=10.0)
      >>> (20 * sent["update"]).tolist()
      [15.0, 20.0]
    """

    def capped(weight, value):
        share = jnp.minimum(1, weight_cap / jnp.asarray(weight))
        return jax.tree.map(lambda leaf: (leaf * beside(share, leaf)).astype(leaf.dtype), value)

    message = clipped(dict(message), clip_norm, clipping)
    return {name: jax.tree.map(capped, weights[name], value) for name, value in message.items()}
