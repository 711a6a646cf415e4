"""k distinct indices at random, without a permutation of all of them.

Two forms, of which the density k / d decides:

Draws: indices are drawn with replacement and marked, then as many more as are missing, until k are
marked. Every step treats all indices alike, so that every subset is equally likely. For more than
half of the indices, those left out are drawn.

Words: each index has a random word, and those of the k largest words are taken. Every subset is
equally likely but for ties: if the k-th largest word occurs twice, which has a probability of about
d / 2**30, the lower index is taken.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from fljax_kernels.compaction import true_indices
from fljax_kernels.rows import for_each_row
from fljax_kernels.top_k import mask_of_largest

# drawing k indices is faster than d words, as measured on a CPU, up to this share of the indices
_DENSE = 1 / 8
# rows of entries that are counted in a byte each
_ROWS = 128


def random_k(key: jax.Array, d: int, k: int) -> jax.Array:
    """Returns k distinct indices, all subsets being equally likely.

    Args:
      key: Typed PRNG key, a scalar; `jax.vmap` over keys gives each its own indices.
      d: Number of indices to choose from.
      k: Number of indices to choose, from 1 to d.

    Returns:
      int32[k], ascending.

    Raises:
      ValueError: If k is out of range.

    Example:
      >>> chosen = random_k(jax.random.key(0), d=10, k=3)
      >>> chosen.shape, bool((chosen[1:] > chosen[:-1]).all())
      ((3,), True)
    """
    return true_indices(random_k_mask(key, d, k), k)


def random_k_mask(key: jax.Array, d: int, k: int) -> jax.Array:
    """Marks the indices that `random_k` returns, at less cost.

    Args:
      key: Typed PRNG key, a scalar.
      d: Number of indices to choose from.
      k: Number of indices to choose, from 1 to d.

    Returns:
      bool[d], with k true entries.

    Raises:
      ValueError: If k is out of range.

    Example:
      >>> mask = random_k_mask(jax.random.key(0), d=10, k=3)
      >>> bool((jnp.flatnonzero(mask) == random_k(jax.random.key(0), d=10, k=3)).all())
      True
    """
    if not 1 <= k <= d:
        raise ValueError(f"k = {k} of {d} indices cannot be chosen; choose k from 1 to {d}.")
    return for_each_row(partial(_mask, d=d, k=k), key, axes=0)


def _mask(key, d, k):
    if k == d:
        return jnp.ones(d, bool)
    chosen = min(k, d - k)
    if chosen > _DENSE * d:
        words = lax.bitcast_convert_type(jax.random.bits(key, (d,), jnp.uint32) >> 2, jnp.int32)
        return mask_of_largest(words, jnp.int32(2**30), k)
    mask = _draw(key, d, chosen)
    return mask if chosen == k else ~mask


def _draw(key, d, k):
    slots = jnp.arange(k, dtype=jnp.int32)

    def missing(state):
        return state[1] < k

    def draw(state):
        mask, marked, key = state
        key, now = jax.random.split(key)
        indices = jax.random.randint(now, (k,), 0, d, jnp.int32)
        indices = jnp.where(slots < k - marked, indices, d)
        mask = mask.at[indices].set(True, mode="drop")
        return mask, _total(mask), key

    state = jnp.zeros(d, bool), jnp.int32(0), key
    return lax.while_loop(missing, draw, state)[0]


def _total(mask):
    """Returns the number of true entries, summed in bytes, of which XLA makes vectors on CPUs."""
    columns = mask.size // _ROWS
    block = mask[: columns * _ROWS].reshape(_ROWS, columns)
    sums = block.sum(0, dtype=jnp.uint8)
    return sums.sum(dtype=jnp.int32) + mask[columns * _ROWS :].sum(dtype=jnp.int32)
