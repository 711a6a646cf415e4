"""Memories of transforms in the shapes of the parameters: zeros at first, checked before use."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

PyTree = Any


def zeros_like(tree: PyTree) -> PyTree:
    """Returns a tree of zeros."""
    return jax.tree.map(jnp.zeros_like, tree)


def check_remembered(value: PyTree, memory: PyTree, what: str) -> None:
    """Raises ValueError where a memory, which has the shapes of the parameters, cannot be added.

    Args:
      value: What the link covers of a client's message.
      memory: Of the link.
      what: Its name.
    """
    if _shapes(value) != _shapes(memory):
        raise ValueError(
            f"{what} keeps a memory in the shapes of the model's parameters, and what its link "
            f"covers has others: {_listed(value)} beside {_listed(memory)}. Let the link cover "
            "what has these shapes: covers='update', not None (the whole message)."
        )


def _shapes(tree: PyTree) -> tuple[list, Any]:
    return [leaf.shape for leaf in jax.tree.leaves(tree)], jax.tree.structure(tree)


def _listed(tree: PyTree) -> str:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    names = [
        f"{jax.tree_util.keystr(path, simple=True, separator='/')}{list(leaf.shape)}"
        for path, leaf in leaves[:_LISTED]
    ]
    more = len(leaves) - len(names)
    return (", ".join(names) or "nothing") + (f" and {more} more" if more else "")


_LISTED = 4
