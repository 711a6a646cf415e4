"""Makes keys of single rows: random in training, always the same ones in evaluation."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from fljax_kernels import random_words


def row_keys(key: jax.Array | None, x: jax.Array) -> jax.Array:
    """Returns a key for each row.

    Args:
      key: Of the step. None outside of training: a key then follows from what the row holds, so
        that a row draws the same numbers at every evaluation, in whatever batch it stands.
      x: [B, ...] numbers.

    Example:
      >>> first, again = (row_keys(None, x) for x in (jnp.eye(3), jnp.eye(3)[1:]))
      >>> bool((first[1:] == again).all())
      True
    """
    if key is None:
        return jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(0), _hashes(x))
    return jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(len(x)))


def _hashes(x: jax.Array) -> jax.Array:
    """Returns uint32[B]: the multilinear hash of each row (Carter and Wegman, 1979)."""
    x = x.reshape(len(x), -1)
    if jnp.issubdtype(x.dtype, jnp.floating):
        words = jax.lax.bitcast_convert_type(x.astype(jnp.float32), jnp.uint32)
    else:
        words = x.astype(jnp.uint32)
    factors = random_words(jax.random.key(0), x.shape[1]) | 1
    return (words * factors).sum(1, dtype=jnp.uint32)
