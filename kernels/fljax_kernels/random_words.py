"""One random word for each entry of a vector, from a counter and a few multiplications.

JAX's threefry (Salmon et al., SC 2011) is made to withstand any statistical test, and takes most of
the time of a quantizer on a CPU, which has to compute its twenty rounds for every two entries.
Rounding needs less. Here a word is a hash of its coordinates: the key's words are mixed into the
entry's index one after another, each time by the finalizer of MurmurHash3 (Appleby, 2011), a
bijection of 32 bits in which every bit of the input changes every bit of the output about half of
the time. The key still is one of JAX's, derived by threefry from seed, round and client, so that
streams of two clients are as unlike as two random keys.

Not for cryptography, nor for noise that must hide something, such as that of differential privacy.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

# 2 ** 32 divided by the golden ratio: neighbours start far apart
_GOLDEN = 0x9E3779B9


def random_words(key: jax.Array, size: int) -> jax.Array:
    """Returns independent, uniform 32-bit words.

    A word depends on its key and its index alone: rows of a batch of keys are what `jax.vmap`, a
    loop or another device gives, and a longer vector begins with the words of a shorter one. No
    word occurs twice in a stream (the hash is a bijection), which 2 ** 32 draws would show.

    Args:
      key: Typed PRNG keys [...], of any of JAX's generators.
      size: Words of each key; at most 2 ** 32.

    Returns:
      uint32[..., size].

    Example:
      >>> long, short = (random_words(jax.random.key(0), size) for size in (5, 3))
      >>> long.dtype.name, bool((long[:3] == short).all())
      ('uint32', True)
    """
    data = jax.random.key_data(key)
    words = lax.iota(jnp.uint32, size) * jnp.uint32(_GOLDEN) + jnp.uint32(_GOLDEN)
    for place in range(data.shape[-1]):
        words = _mix(words ^ data[..., place, None])
    return words


def keys_of_rows(key: jax.Array, x: jax.Array) -> jax.Array:
    """Returns the keys, one for each row of x.

    Raises:
      ValueError: If x is a scalar, or there are fewer or more keys than rows.
      TypeError: If they are not typed keys.
    """
    if not jax.dtypes.issubdtype(key.dtype, jax.dtypes.prng_key):
        raise TypeError(
            f"A typed key is needed, not {key.dtype}{list(key.shape)}: jax.random.key(seed), or "
            "jax.random.wrap_key_data(...) for a key of the old kind."
        )
    if x.ndim == 0 or key.shape != x.shape[:-1]:
        raise ValueError(
            f"Keys {list(key.shape)} do not fit x{list(x.shape)}: each vector along the last axis "
            "needs a key of its own, as of jax.random.split(key, x.shape[:-1])."
        )
    return key


def _mix(words: jax.Array) -> jax.Array:
    """The finalizer of MurmurHash3."""
    words = (words ^ (words >> 16)) * jnp.uint32(0x85EBCA6B)
    words = (words ^ (words >> 13)) * jnp.uint32(0xC2B2AE35)
    return words ^ (words >> 16)
