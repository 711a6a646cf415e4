"""Reads sets of items that rows hold as lists of numbers, filled up with 0."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def members(items: jax.Array, num_items: int) -> jax.Array:
    """Returns which items each row holds.

    Args:
      items: int[B, H] numbers of items; 0 stands for none.
      num_items: One more than the largest number.

    Returns:
      bool[B, num_items]; item 0 is in no row.

    Example:
      >>> members(jnp.array([[2, 1, 0], [3, 0, 0]]), 4).astype(int).tolist()
      [[0, 1, 1, 0], [0, 0, 0, 1]]
    """
    rows = jnp.arange(len(items))[:, None]
    holds = jnp.zeros((len(items), num_items), bool)
    return holds.at[rows, items].set(True).at[:, 0].set(False)
