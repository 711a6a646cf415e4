"""Turns messages into integers whose norm is bounded, and sums of such integers back.

Kairouz, Liu and Steinke 2021, "The distributed discrete Gaussian mechanism for federated learning
with secure aggregation" (arXiv:2102.06387): clip, rotate at random so that no coordinate is large,
scale, and round conditionally, so that the norm grows little. Their vectors are padded to a power
of two; here a rotation turns the first and then the last 2^k of d < 2^(k + 1) coordinates, and adds
none.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp

from fljax.privacy.secagg.fixed_point import rounded_within
from fljax_kernels import rotate, rotate_back

__all__ = ["flat", "integers", "norm_before", "rotated", "rotated_back", "split"]

PyTree = Any


def integers(
    vector: jax.Array,
    clip_norm: jax.Array | float,
    norm: jax.Array | float,
    shared_key: jax.Array,
    key: jax.Array,
) -> jax.Array:
    """Returns int32[d], a rotated, scaled and rounded vector.

    Args:
      vector: float[d] whose norm is at most `clip_norm`.
      clip_norm: Positive.
      norm: What the norm of the integers is at most; where it is too small for d numbers to be
        rounded, they are all zero.
      shared_key: Of the rotation, which clients and server share.
      key: Of this vector.

    Example:
      >>> from fljax.privacy.integer_messages import integers
      >>> keys = jax.random.split(jax.random.key(0))
      >>> vector = integers(jnp.array([0.6, 0.8]), 1.0, 100.0, *keys)
      >>> bool(98 < jnp.linalg.norm(vector) < 100)
      True
    """
    scale = scale_of(norm, clip_norm, vector.size)
    return rounded_within(rotated(vector, shared_key) * scale, norm, key).astype(jnp.int32)


def scale_of(norm: jax.Array | float, clip_norm: jax.Array | float, dimension: int) -> jax.Array:
    """Returns what a vector is multiplied by before it is rounded."""
    # rotations in float32 keep norms to some 1e-6
    return norm_before(norm, dimension) * (1 - 1e-5) / clip_norm


def norm_before(norm: jax.Array | float, dimension: int) -> jax.Array:
    """Returns the norm below which rounding keeps a vector within a norm, 0 where none is.

    Either always, or with probability 1 - exp(-1/2), so that others are drawn again (proposition
    22 of the paper).

    Example:
      >>> [round(float(norm_before(norm, 10_000)), 1) for norm in (1000, 100, 50)]
      [998.2, 85.8, 0.0]
    """
    norm, root = jnp.asarray(norm, jnp.result_type(float)), math.sqrt(dimension)
    square = 1 + 4 * jnp.square(norm) - dimension - 2 * root
    likely = (jnp.sqrt(jnp.maximum(square, 0)) - 1) / 2
    return jnp.maximum(jnp.maximum(norm - root, likely), 0)


def rotated(vector: jax.Array, key: jax.Array) -> jax.Array:
    """Returns a vector of the same norm and size, in which no coordinate is likely to be large.

    Args:
      vector: float[d].
      key: Typed PRNG key, which whoever turns it back must have.
    """
    first, last = jax.random.split(key)
    width = _width(vector.size)
    vector = vector.at[:width].set(rotate(vector[:width], first))
    if width < vector.size:
        vector = vector.at[-width:].set(rotate(vector[-width:], last))
    return vector


def rotated_back(vector: jax.Array, key: jax.Array) -> jax.Array:
    """Inverts `rotated`.

    Example:
      >>> from fljax.privacy.integer_messages import rotated, rotated_back
      >>> vector, key = jnp.arange(11.0), jax.random.key(0)
      >>> bool(jnp.allclose(rotated_back(rotated(vector, key), key), vector, atol=1e-5))
      True
    """
    first, last = jax.random.split(key)
    width = _width(vector.size)
    if width < vector.size:
        vector = vector.at[-width:].set(rotate_back(vector[-width:], last))
    return vector.at[:width].set(rotate_back(vector[:width], first))


def _width(size: int) -> int:
    return 1 << (size.bit_length() - 1)


def flat(tree: PyTree) -> jax.Array:
    """Returns all numbers of a tree as a vector."""
    return jnp.concatenate([leaf.reshape(-1) for leaf in jax.tree.leaves(tree)])


def split(vector: jax.Array, like: PyTree) -> PyTree:
    """Returns a vector's numbers in the shapes of a tree, in their own type.

    Example:
      >>> split(jnp.arange(3, dtype=jnp.uint32), {"b": jnp.zeros(1), "w": jnp.zeros((1, 2))})["w"]
      Array([[1, 2]], dtype=uint32)
    """
    leaves, structure = jax.tree.flatten(like)
    ends = list(itertools.accumulate(leaf.size for leaf in leaves))[:-1]
    parts = jnp.split(vector, ends)
    shaped = [part.reshape(leaf.shape) for part, leaf in zip(parts, leaves, strict=True)]
    return jax.tree.unflatten(structure, shaped)
