"""Arrays of which none is there before all are, so that XLA updates others in place."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

PyTree = Any


def together(tree: PyTree) -> PyTree:
    """Returns arrays as they are, on CPUs none of them before all are known.

    XLA writes the result of an update over the old array only where it can tell that nobody reads
    that any more, and it can tell from results alone, not from the order in which it computes. A
    layer's weights are read for the gradient of the layer beneath, and the update of these weights
    needs no result of that: so they are copied in every step. If gradients come together, all
    reading is over. An optimization barrier does not help, since it is removed before copies are
    placed; a factor that depends on an entry of each array, and is always 1, stays.

    Args:
      tree: Floating-point numbers of any shapes.

    Returns:
      The same.
    """
    leaves = [leaf for leaf in jax.tree.leaves(tree) if leaf.size]
    if jax.default_backend() != "cpu" or len(leaves) < 2:
        return tree
    entries = jnp.stack([leaf.reshape(-1)[0].astype(jnp.float32) for leaf in leaves])
    # no number is both; XLA does not find out
    none = jnp.minimum(entries.max(), 1) > 1
    return jax.tree.map(lambda leaf: leaf * jnp.where(none, 0, 1).astype(leaf.dtype), tree)
