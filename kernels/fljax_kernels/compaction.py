"""The places of a mask's true entries, without a prefix sum over all entries.

The mask is packed into words of 32 bits; their population counts are summed up, 32 times fewer
numbers than entries, and within a word the bit of a rank is found by five halvings.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from fljax_kernels.rows import for_each_row

# entries that one step of a blocked scan deals with: XLA's scans of long axes are slow on CPUs
_BLOCK = 128


def true_indices(mask: jax.Array, k: int) -> jax.Array:
    """Returns the places of a mask's true entries, in ascending order.

    Args:
      mask: bool[..., d]; each row must have exactly k true entries (what is returned for another
        number means nothing).
      k: Number of true entries.

    Returns:
      int32[..., k].
    """
    return for_each_row(partial(_true_indices, k=k), mask)


def _true_indices(mask, k):
    words = pack(mask)
    sizes = _population(words)
    starts = running(jnp.cumsum, jnp.add, sizes) - sizes
    # a word that has true entries writes its number where they begin; the rest of them follow
    numbers = jnp.arange(words.size, dtype=jnp.int32)
    # the others write nowhere, each in a place of its own, so that XLA may know: no two meet
    places = jnp.where(sizes > 0, starts, k + numbers)
    word = jnp.zeros(k, jnp.int32).at[places].set(numbers, mode="drop", unique_indices=True)
    word = running(lax.cummax, jnp.maximum, word)
    rank = jnp.arange(k, dtype=jnp.int32) - starts[word]
    return 32 * word + _place_of_rank(words[word], rank)


def index_of_rank(mask: jax.Array, rank: jax.Array) -> jax.Array:
    """Returns the place of one true entry of a mask.

    Args:
      mask: bool[d].
      rank: int32[] number of true entries before it; there must be more than that.

    Returns:
      int32[].
    """
    words = pack(mask)
    totals = running(jnp.cumsum, jnp.add, _population(words))
    word = (totals <= rank).sum(dtype=jnp.int32)
    word = jnp.minimum(word, words.size - 1)
    return 32 * word + _place_of_rank(words[word], rank - totals[word] + _population(words[word]))


def pack(mask: jax.Array) -> jax.Array:
    """Packs bool[d] into uint32[ceil(d / 32)]: bit i of word w is the entry 32 w + i."""
    bits = jnp.left_shift(jnp.uint32(1), jnp.arange(32, dtype=jnp.uint32))
    mask = jnp.pad(mask, (0, -mask.size % 32)).reshape(-1, 32)
    return jnp.where(mask, bits, jnp.uint32(0)).sum(1, dtype=jnp.uint32)


def running(scan, combine, x: jax.Array) -> jax.Array:
    """Scans int[n] block by block, and then over the blocks; zero must be neutral.

    Args:
      scan: `jnp.cumsum` or `lax.cummax`.
      combine: The operation that it repeats.
      x: int[n], not negative.
    """
    blocks = scan(jnp.pad(x, (0, -x.size % _BLOCK)).reshape(-1, _BLOCK), axis=1)
    before = jnp.pad(scan(blocks[:, -1], axis=0)[:-1], (1, 0))
    return combine(blocks, before[:, None]).reshape(-1)[: x.size]


def _population(words):
    return lax.population_count(words).astype(jnp.int32)


def _place_of_rank(words, rank):
    """Returns the place in each word of the bit that has `rank` true bits before it."""
    place = jnp.zeros_like(rank)
    for width in (16, 8, 4, 2, 1):
        low = (words >> place.astype(jnp.uint32)) & jnp.uint32((1 << width) - 1)
        count = _population(low)
        beyond = rank >= count
        rank = jnp.where(beyond, rank - count, rank)
        place = jnp.where(beyond, place + width, place)
    return place
