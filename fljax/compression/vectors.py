"""Puts vectors together and fills them up, at the cost of a copy.

XLA's CPU backend makes one loop of a concatenation (or a padding) and of what is before and behind
it, and then looks up for every entry which part it is from: some ten times slower than the copy.
Slices of a vector that are written in place stay loops of their own.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

from fljax_kernels.stored import stored


def joined(parts: Sequence[jax.Array], length: int | None = None) -> jax.Array:
    """Returns vectors one behind the other, in the widest of their types.

    Args:
      parts: Vectors.
      length: Of the result, which is filled up with zeros; None for that of all parts.
    """
    vector = jnp.zeros(length or sum(part.size for part in parts), jnp.result_type(*parts))
    begin = 0
    for part in parts:
        vector = lax.dynamic_update_slice(vector, part.astype(vector.dtype), (begin,))
        begin += part.size
    return vector


def in_rows(x: jax.Array, size: int) -> jax.Array:
    """Returns x[d] as rows of `size` entries, the last one filled up with zeros."""
    if x.size % size == 0:
        return x.reshape(-1, size)
    return joined([x], -(-x.size // size) * size).reshape(-1, size)


def flat(rows: jax.Array, d: int) -> jax.Array:
    """Returns x[d] of rows as `in_rows` makes them.

    Written by a loop of its own: whoever takes leaves out of the vector would else look for the row
    of every entry.
    """
    return stored(rows.reshape(-1))[:d]
