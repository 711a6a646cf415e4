"""Random orders by a key: of 0 to n - 1, computed entry by entry, and of those who are there.

A keyed permutation is a Feistel network over pairs of half-words (Luby and Rackoff 1988,
doi:10.1137/0217022), which permutes the numbers below a power of 4; those that leave the range walk
on through it until they are back (Black and Rogaway 2002, doi:10.1007/3-540-45760-7_9). Nothing of
size n is held.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

_ROUNDS = 12


def keyed_permutation(key: jax.Array, entries: jax.Array, n: int) -> jax.Array:
    """Returns where a random permutation of 0 to n - 1 takes some entries.

    Args:
      key: Typed PRNG key; one key is one permutation.
      entries: int32[...] from 0 to n - 1.
      n: Size of the range, from 1 on.

    Returns:
      int32[...] from 0 to n - 1.

    Example:
      >>> sorted(keyed_permutation(jax.random.key(0), jnp.arange(5), 5).tolist())
      [0, 1, 2, 3, 4]
    """
    half = max(1, -(-(n - 1).bit_length() // 2))

    def mixed(number: jax.Array, halves: tuple) -> tuple:
        left, right = halves
        return right, left ^ _hashed(jax.random.fold_in(key, number), right, half)

    def once(entry: jax.Array) -> jax.Array:
        halves = entry >> half, entry & ((1 << half) - 1)
        left, right = jax.lax.fori_loop(0, _ROUNDS, mixed, halves)
        return (left << half) | right

    def on_their_way(walk: jax.Array) -> jax.Array:
        return jnp.where(walk >= n, once(walk), walk)

    start = once(jnp.asarray(entries, jnp.int32))
    return jax.lax.while_loop(lambda walk: (walk >= n).any(), on_their_way, start)


def shuffled(key: jax.Array, there: jax.Array) -> jax.Array:
    """Returns the places of those who are there in random order, and behind them all others.

    Each draws by its number among those who are there, so that places of nobody change nothing: in
    a sweep those of other trials, which one of them alone does not have.

    Args:
      key: Typed PRNG key; one key is one order.
      there: bool[P].

    Returns:
      int32[P].

    Example:
      >>> there = jnp.array([True, False, True, True])
      >>> shuffled(jax.random.key(0), there).tolist()
      [0, 3, 2, 1]
      >>> shuffled(jax.random.key(0), there[there]).tolist()
      [0, 2, 1]
    """
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.cumsum(there))
    drawn = jax.vmap(lambda key: jax.random.bits(key, dtype=jnp.uint32))(keys)
    return jnp.argsort(jnp.where(there, drawn >> 1, jnp.uint32(2**31)))


def _hashed(key: jax.Array, words: jax.Array, bits: int) -> jax.Array:
    """Returns int32, `bits` random bits of each word."""
    draw = jax.vmap(lambda word: jax.random.bits(jax.random.fold_in(key, word), (), jnp.uint32))
    found = draw(words.reshape(-1)).reshape(words.shape)
    return (found >> (32 - bits)).astype(jnp.int32)
