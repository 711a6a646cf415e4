"""Natural compression (Horvath et al., arXiv:1905.10988): stochastic rounding to powers of two.

A number between two powers of two goes to the upper one with the probability of its distance from
the lower one. On the bits of a float32 that is one addition: of 23 random bits to the mantissa,
whose carry, with the mantissa's own probability, increments the exponent. It is therefore exactly
unbiased, and its variance is at most 1/8 of the square of each entry. What is left is sign and
exponent, 9 bits.

The same addition rounds subnormal numbers, without bias, to 0 or 2 ** -126. At 2 ** 127 and above,
where the next power of two is infinite, magnitudes become 2 ** 127: this alone is biased. Infinity
stays, with its sign, and so does NaN. Of the 512 codes on the wire none is free for NaN but that of
-0.0, which comes back as 0.0.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from fljax_kernels.packing import pack_bits, packed_size, unpack_bits
from fljax_kernels.random_words import keys_of_rows, random_words

_SIGN = 1 << 31
_EXPONENT = 0xFF << 23
_MANTISSA = (1 << 23) - 1
_NAN = _EXPONENT | 1 << 22


def round_to_powers_of_two(x: jax.Array, key: jax.Array) -> jax.Array:
    """Rounds each entry to one of the two powers of two next to it.

    Args:
      x: Numbers [..., d], rounded to float32 first.
      key: Typed PRNG keys [...], one for each vector.

    Returns:
      float32[..., d], each 0, a power of two of either sign, infinite or NaN.

    Raises:
      ValueError: If keys do not fit.

    Example:
      >>> round_to_powers_of_two(jnp.array([0.0, 0.5, -4.0]), jax.random.key(0)).tolist()
      [0.0, 0.5, -4.0]
    """
    words = random_words(keys_of_rows(key, x), x.shape[-1])
    bits = lax.bitcast_convert_type(x.astype(jnp.float32), jnp.uint32)
    magnitude = bits & jnp.uint32(_EXPONENT | _MANTISSA)
    fixed = magnitude >= jnp.uint32(254 << 23)
    rounded = bits + jnp.where(fixed, 0, words & jnp.uint32(_MANTISSA))
    rounded = rounded & jnp.uint32(_SIGN | _EXPONENT)
    rounded = jnp.where(magnitude > jnp.uint32(_EXPONENT), jnp.uint32(_NAN), rounded)
    return lax.bitcast_convert_type(rounded, jnp.float32)


def pack_powers_of_two(x: jax.Array) -> jax.Array:
    """Packs numbers that `round_to_powers_of_two` returned.

    Args:
      x: float32[..., d]; their mantissas are dropped.

    Returns:
      uint8[..., d + ceil(d / 8)]: the exponents as a float32 has them, one byte each, then the
      signs (1 is negative), in the order of `pack_bits`. Zero has exponent 0 and sign 0; NaN,
      exponent 0 and sign 1.
    """
    bits = lax.bitcast_convert_type(x.astype(jnp.float32), jnp.uint32)
    magnitude = bits & jnp.uint32(_EXPONENT | _MANTISSA)
    missing = magnitude > jnp.uint32(_EXPONENT)
    exponent = jnp.where(missing, 0, magnitude >> 23).astype(jnp.uint8)
    sign = jnp.where(exponent == 0, missing, bits >> 31)
    return jnp.concatenate([exponent, pack_bits(sign, 1)], axis=-1)


def unpack_powers_of_two(packed: jax.Array, size: int) -> jax.Array:
    """Inverts `pack_powers_of_two`.

    Args:
      packed: uint8[..., size + ceil(size / 8)].
      size: Number of entries.

    Returns:
      float32[..., size].

    Raises:
      ValueError: For another number of bytes.
    """
    if packed.shape[-1] != size + packed_size(size, 1):
        raise ValueError(
            f"{size} powers of two are {size + packed_size(size, 1)} bytes, not {packed.shape[-1]}."
        )
    exponent = packed[..., :size].astype(jnp.uint32)
    sign = unpack_bits(packed[..., size:], 1, size).astype(jnp.uint32)
    missing = (exponent == 0) & (sign != 0)
    bits = jnp.where(missing, jnp.uint32(_NAN), sign << 31 | exponent << 23)
    return lax.bitcast_convert_type(bits, jnp.float32)
