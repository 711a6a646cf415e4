"""Distances between what was sent and what rows would have sent, and a prior of images."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

__all__ = ["DISTANCES", "cosine_distance", "relative_l2", "total_variation"]

PyTree = Any


def _dot(left: PyTree, right: PyTree) -> jax.Array:
    products = jax.tree.map(jnp.vdot, left, right)
    return sum(jax.tree.leaves(products))


def relative_l2(sent: PyTree, observed: PyTree) -> jax.Array:
    """Returns |sent - observed|^2 / |observed|^2, a scalar (Zhu et al. 2019, arXiv:1906.08935).

    They do not divide, which moves no minimum; so a tolerance means the same for every model.

    Example:
      >>> float(relative_l2([jnp.array([1.0, 0.0])], [jnp.array([0.0, 2.0])]))
      1.25
    """
    apart = jax.tree.map(jnp.subtract, sent, observed)
    size = _dot(observed, observed)
    return _dot(apart, apart) / jnp.where(size > 0, size, 1)


def cosine_distance(sent: PyTree, observed: PyTree) -> jax.Array:
    """Returns 1 - <sent, observed> / |sent| |observed| (Geiping et al. 2020, arXiv:2003.14053).

    Of nothing sent, it is 1.

    Example:
      >>> float(cosine_distance([jnp.array([3.0, 0.0])], [jnp.array([0.0, 2.0])]))
      1.0
    """
    sizes = [_dot(tree, tree) for tree in (sent, observed)]
    lengths = [jnp.sqrt(jnp.where(size > 0, size, 1)) for size in sizes]
    return 1 - _dot(sent, observed) / lengths[0] / lengths[1]


DISTANCES = {"l2": relative_l2, "cosine": cosine_distance}


def total_variation(images: jax.Array) -> jax.Array:
    """Returns the mean vertical and the mean horizontal difference of pixels, added up.

    Args:
      images: float[B, H, W] or float[B, H, W, C].

    Example:
      >>> float(total_variation(jnp.array([[[0.0, 1.0], [0.0, 1.0]]])))
      1.0
    """
    vertical = jnp.abs(jnp.diff(images, axis=1)).mean() if images.shape[1] > 1 else 0.0
    horizontal = jnp.abs(jnp.diff(images, axis=2)).mean() if images.shape[2] > 1 else 0.0
    return vertical + horizontal
