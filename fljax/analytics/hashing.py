"""Hashes rows to 32 bits, the same on clients and on the server.

A number is mixed by the finalizer of MurmurHash3 (Appleby 2011), of which each step can be undone,
so that no two numbers of 32 bits collide; a row of several is the mixed sum of its numbers times
odd random factors (Carter and Wegman 1979).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from fljax.core import random


def mixed(words: jax.Array, seed: int = 0) -> jax.Array:
    """Returns uint32 words whose bits all depend on all bits of those given.

    Args:
      words: uint32, of any shape.
      seed: Of the function, one of a family.

    Example:
      >>> len(set(mixed(jnp.arange(1000, dtype=jnp.uint32)).tolist()))
      1000
    """
    words = words ^ np.uint32(random.bits(seed, "analytics/hash") & np.uint64(0xFFFFFFFF))
    words = (words ^ (words >> 16)) * np.uint32(0x85EBCA6B)
    words = (words ^ (words >> 13)) * np.uint32(0xC2B2AE35)
    return words ^ (words >> 16)


def row_hashes(values: jax.Array, seed: int = 0) -> jax.Array:
    """Returns uint32[B], the hash of each row.

    Args:
      values: [B, ...] numbers; floating-point numbers count by their float32 bits.
      seed: Of the function.

    Example:
      >>> rows = jnp.array([[1, 2], [2, 1], [1, 2]])
      >>> first, second, third = row_hashes(rows).tolist()
      >>> first == third, first == second
      (True, False)
    """
    rows = values.reshape(len(values), -1)
    if jnp.issubdtype(rows.dtype, jnp.floating):
        words = jax.lax.bitcast_convert_type(rows.astype(jnp.float32), jnp.uint32)
        words = jnp.where(words == np.uint32(1 << 31), 0, words)  # there are two zeros
    else:
        words = rows.astype(jnp.uint32)
    if rows.shape[1] == 1:
        return mixed(words[:, 0], seed)
    factors = random.bits(seed, "analytics/factors", np.arange(rows.shape[1]))
    factors = (factors & np.uint64(0xFFFFFFFF)).astype(np.uint32) | np.uint32(1)
    return mixed((words * factors).sum(1, dtype=jnp.uint32), seed)
