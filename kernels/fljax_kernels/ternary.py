"""TernGrad (Wen et al., arXiv:1705.07878): each entry becomes -m, 0 or m, where m = max |x|.

An entry is not zero with probability |x| / m, which makes the mean of its codes the entry itself,
and the variance the sum of |x| (m - |x|): at most (sqrt(d) - 1) / 2 ||x||², for one large entry
among equal ones of 1 / (1 + sqrt(d)) of it. (The paper also clips gradients at 2.5 standard
deviations first, which is the caller's to do.)

Five trits fill a byte, 3 ** 5 = 243: 1.6 bits an entry, where log2 3 = 1.585 would be the least. As
in `pack_bits`, byte j holds the entries j, j + n, ..., j + 4n, where n = ceil(d / 5) is the number
of bytes; the first is the lowest digit, and digits without an entry are 0.
"""

from __future__ import annotations

from functools import reduce

import jax
import jax.numpy as jnp

from fljax_kernels.quantize import dequantize_symmetric, quantize_symmetric
from fljax_kernels.stored import stored

TRITS = 5


def ternarize(x: jax.Array, scale: jax.Array, key: jax.Array) -> jax.Array:
    """Draws a trit for each entry.

    Args:
      x: Numbers [..., d].
      scale: [...], at least the largest magnitude of its vector (`largest_magnitude`), or 0.
      key: Typed PRNG keys [...], one for each vector.

    Returns:
      uint8[..., d]: 0, 1 or 2, for -scale, 0 and scale. Infinite and missing numbers are dealt with
      as in `fljax_kernels.quantize`.

    Example:
      >>> ternarize(jnp.array([-2.0, 0.0, 2.0]), jnp.float32(2), jax.random.key(0)).tolist()
      [0, 1, 2]
    """
    return quantize_symmetric(x, scale, 1, key)


def deternarize(trits: jax.Array, scale: jax.Array) -> jax.Array:
    """Returns (trits - 1) * scale [..., d], for uint8[..., d] and [...].

    Example:
      >>> deternarize(jnp.array([0, 1, 2], jnp.uint8), jnp.float32(2)).tolist()
      [-2.0, 0.0, 2.0]
    """
    return dequantize_symmetric(trits, scale, 1)


def pack_trits(trits: jax.Array) -> jax.Array:
    """Packs integers [..., d] in {0, 1, 2} into uint8[..., ceil(d / 5)].

    Example:
      >>> pack_trits(jnp.array([0, 1, 2, 0, 1, 2], jnp.uint8)).shape
      (2,)
    """
    size = trits.shape[-1]
    padding = [(0, 0)] * (trits.ndim - 1) + [(0, -size % TRITS)]
    digits = jnp.split(stored(jnp.pad(trits.astype(jnp.uint8), padding)), TRITS, axis=-1)
    return reduce(lambda high, low: high * jnp.uint8(3) + low, reversed(digits))


def unpack_trits(packed: jax.Array, size: int) -> jax.Array:
    """Inverts `pack_trits`.

    Args:
      packed: uint8[..., ceil(size / 5)], below 243.
      size: Number of trits.

    Returns:
      uint8[..., size] in {0, 1, 2}.

    Raises:
      ValueError: For another number of bytes.

    Example:
      >>> trits = jnp.array([0, 1, 2, 0, 1, 2], jnp.uint8)
      >>> unpack_trits(pack_trits(trits), 6).tolist()
      [0, 1, 2, 0, 1, 2]
    """
    if packed.shape[-1] != -(-size // TRITS):
        raise ValueError(f"{size} trits are {-(-size // TRITS)} bytes, not {packed.shape[-1]}.")
    packed = packed.astype(jnp.uint32)

    def digit(place):
        # the quotients of a byte by 3 ** place, exact for all 256, without a division
        high, low = (packed * jnp.uint32(-(-(1 << 16) // 3**k)) >> 16 for k in (place + 1, place))
        return (low - 3 * high).astype(jnp.uint8)

    digits = jnp.concatenate([digit(place) for place in range(TRITS)], axis=-1)
    return stored(digits[..., :size])
