"""Mean shift: clusters are the points that lie near one mode of their density.

Comaniciu and Meer 2002, "Mean shift: a robust approach toward feature space analysis"
(doi:10.1109/34.1000236), with a flat kernel. From each point on,

    m <- mean of the points within h of m

until m rests. Of modes within h of each other the one with most points in reach stays, and a point
belongs to the nearest mode, unless that is farther than h. How many clusters there are is found;
the bandwidth h is the mean distance from a point to the farthest of the nearest half of all points.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

__all__ = ["largest_cluster"]

# Steps of a point at most, and the part of h below which it rests.
_MOST_STEPS, _RESTS = 300, 1e-3
# Points nearer than this are one, as those of equal features are but for rounding.
_SAME = 1e-5


def largest_cluster(points: jax.Array, valid: jax.Array, reach: float = 0.5) -> jax.Array:
    """Returns which points are in the largest cluster.

    Args:
      points: float[P, k], of the order of 1.
      valid: bool[P], which of them are there.
      reach: The share of all points that the bandwidth of a point reaches, at least one.

    Returns:
      bool[P]. Of clusters of one size, that whose mode has most points in reach; of these, that
      whose mode comes last in the order of its coordinates.

    Example:
      >>> points = jnp.array([[0.0], [0.1], [5.0], [0.2]])
      >>> largest_cluster(points, jnp.array([True, True, True, True])).tolist()
      [True, True, False, True]
    """
    width = bandwidth(points, valid, reach)
    modes, heights = _modes(points, valid, width)
    order = jnp.lexsort((*modes.T[::-1], heights))[::-1]  # the highest first
    modes = modes[order]
    stays = _apart(modes, valid[order], width)
    distances = jnp.where(stays[None], _distances(points, modes), jnp.inf)
    nearest = distances.argmin(1)
    belongs = valid & (distances.min(1) <= width)
    sizes = (belongs[:, None] & (nearest[:, None] == jnp.arange(len(points)))).sum(0)
    return belongs & (nearest == sizes.argmax())


def bandwidth(points: jax.Array, valid: jax.Array, reach: float) -> jax.Array:
    """Returns the mean distance from a point to the farthest of its nearest ones, itself included.

    Args:
      points: float[P, k].
      valid: bool[P].
      reach: The share of all points that are its nearest, rounded down, but at least one.
    """
    count = valid.sum()
    near = jnp.clip((reach * count).astype(int), 1, None)
    ordered = jnp.sort(jnp.where(valid[None], _distances(points, points), jnp.inf), axis=1)
    farthest = ordered[:, near - 1]
    return jnp.where(valid, farthest, 0).sum() / jnp.maximum(count, 1) + _SAME


def _modes(points: jax.Array, valid: jax.Array, width: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns where each point comes to rest, [P, k], and how many points are in reach there."""

    def in_reach(modes):
        return (valid[None] & (_distances(modes, points) <= width)).astype(points.dtype)

    def step(state):
        modes, moving, number = state
        near = in_reach(modes)
        sums = jnp.matmul(near, points, precision=jax.lax.Precision.HIGHEST)
        new = sums / jnp.maximum(near.sum(1), 1)[:, None]
        new = jnp.where(moving[:, None], new, modes)
        moving &= jnp.sqrt(((new - modes) ** 2).sum(1)) > _RESTS * width
        return new, moving, number + 1

    def goes_on(state):
        return state[1].any() & (state[2] < _MOST_STEPS)

    modes, _, _ = jax.lax.while_loop(goes_on, step, (points, valid, 0))
    return modes, jnp.where(valid, in_reach(modes).sum(1), -1)


def _apart(modes: jax.Array, valid: jax.Array, width: jax.Array) -> jax.Array:
    """Returns which modes stay, bool[P]: those that no higher one which stays is near."""
    near = _distances(modes, modes) <= width

    def step(number, stays):
        return stays & ~(stays[number] & near[number] & (jnp.arange(len(modes)) > number))

    return jax.lax.fori_loop(0, len(modes), step, valid)


def _distances(points: jax.Array, others: jax.Array) -> jax.Array:
    """Returns [P, Q], the distances of all pairs."""
    return jnp.sqrt(((points[:, None] - others[None]) ** 2).sum(-1))
