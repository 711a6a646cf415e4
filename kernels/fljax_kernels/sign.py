"""Signs, one bit an entry, and the scale that makes of them an approximation.

mean |x| times the sign is the multiple of the sign that is nearest to x, at a distance of
||x||² - ||x||_1² / d: the compressor of EF-signSGD (Karimireddy et al., arXiv:1901.09847), biased
and therefore used with error feedback. signSGD (Bernstein et al., arXiv:1802.04434) sends the signs
alone.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from fljax_kernels.packing import pack_bits, unpack_bits


def mean_magnitude(x: jax.Array) -> jax.Array:
    """Returns mean |x| [...] of the vectors x[..., d]: NaN or infinite where one of x is."""
    return jnp.abs(x).mean(-1, dtype=jnp.promote_types(x.dtype, jnp.float32))


def pack_signs(x: jax.Array) -> jax.Array:
    """Packs the signs of x.

    Args:
      x: Numbers [..., d]. Zero counts as positive, and so do -0.0 and, since XLA takes them for
        zero on CPUs, subnormal numbers. NaN counts as negative; only a scale that is computed from
        x tells of it.

    Returns:
      uint8[..., ceil(d / 8)], a bit of 1 for a positive sign, in the order of `pack_bits`.

    Example:
      >>> pack_signs(jnp.array([-0.5, 0.0, 3.0])).shape
      (1,)
    """
    return pack_bits(x >= 0, 1)


def unpack_signs(packed: jax.Array, scale: jax.Array, size: int) -> jax.Array:
    """Returns the scale with the signs that were packed.

    Args:
      packed: uint8[..., ceil(size / 8)].
      scale: [...], or one for all; 1 for the signs themselves.
      size: Number of entries d.

    Returns:
      [..., size] of scale's dtype.

    Example:
      >>> unpack_signs(pack_signs(jnp.array([-0.5, 0.0, 3.0])), jnp.float32(2), 3).tolist()
      [-2.0, 2.0, 2.0]
    """
    scale = jnp.asarray(scale)[..., None]
    return jnp.where(unpack_bits(packed, 1, size) != 0, scale, -scale)
