"""Applies a model to the real rows of a batch, and adds up what is measured by example."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from fljax.core.network import Network
from fljax.core.values import brief

PyTree = Any


def applied(
    network: Network,
    params: PyTree,
    frozen: PyTree,
    model_state: PyTree,
    x: PyTree,
    key: jax.Array | None,
    train: bool,
    mask: jax.Array,
) -> tuple[PyTree, PyTree]:
    """Returns (outputs, model_state') of a network, as `Network.apply` does, of real rows.

    Padding rows are zeros to the network, whatever they hold.

    Raises:
      ValueError: If the network cannot be applied to such inputs, with the shapes of both.
    """
    # zeros, not the losses alone: 0 x NaN in a gradient is NaN
    x = jax.tree.map(lambda leaf: only_real(mask, leaf), x)
    try:
        return network.apply(params, frozen, model_state, x, key, train, mask)
    except Exception as error:
        raise ValueError(_misfit(params, x, error)) from error


def only_real(mask: jax.Array, values: jax.Array) -> jax.Array:
    """Returns the values with zeros where the mask, over the first axes, is false."""
    values = jnp.asarray(values)
    mask = mask.reshape(mask.shape + (1,) * (values.ndim - mask.ndim))
    return jnp.where(mask, values, jnp.zeros((), values.dtype))


def per_example(targets: jax.Array) -> jax.Array:
    """Returns [B], the sums over all axes of [B, ...] but the first."""
    return targets.reshape(targets.shape[0], -1).sum(1, dtype=targets.dtype)


def _misfit(params: Any, x: Any, error: Exception) -> str:
    """Says that a model cannot be applied to its inputs, with the shapes of both."""
    matrices = [
        (path, leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
        if jnp.ndim(leaf) > 1
    ]
    has = f", and its first weights are {_described(*matrices[0][::-1])}" if matrices else ""
    inputs = " and ".join(map(_described, jax.tree.leaves(x)))
    return (
        f"The model cannot be applied to a batch of the data: x is {inputs}{has} ({brief(error)})."
    )


def _described(leaf: Any, path: tuple = ()) -> str:
    """Returns type and shape of an array, after the names that lead to it."""
    name = "/".join(str(getattr(key, "key", key)) for key in path)
    return f"{name} {jnp.result_type(leaf)}{list(jnp.shape(leaf))}".strip()
