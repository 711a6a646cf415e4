"""Sends narrower floating-point numbers, or exactly what it is given."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from fljax.compression import wire
from fljax.compression.compressor import Compressor, fixed_size


def identity() -> Compressor:
    """Returns the compressor that sends every number as it is.

    Wire format: d numbers at their own width (32 d bits). omega = 0, alpha = 1.

    Example:
      >>> code, x = compression.identity(), jnp.array([3.0, -1.0, 0.5, -2.0])
      >>> payload = code.encode(jax.random.key(0), x)
      >>> print(jnp.round(code.decode(payload, 4), 2), int(code.bits(payload, 4)), 'bits')
      [ 3.  -1.   0.5 -2. ] 128 bits
    """
    return fixed_size(
        "identity",
        "none",
        encode=lambda key, x: {"values": x},
        decode=lambda payload, d: payload["values"],
        layout=lambda d: {"values": wire.floats((d,))},
        omega=lambda d: 0.0,
        alpha=lambda d: 1.0,
    )


def bf16() -> Compressor:
    """Returns the cast to bfloat16: 8 bits of exponent, 8 of precision, rounded to nearest even.

    The error of a coordinate is at most 2^-8 of it, so alpha = 1 - 2^-16 (for normal numbers below
    the largest bfloat16, 3.39e38).

    Wire format: 16 d bits.

    Example:
      >>> code, x = compression.bf16(), jnp.array([3.1416, -1.0, 0.5, -2.0])
      >>> payload = code.encode(jax.random.key(0), x)
      >>> print(jnp.round(code.decode(payload, 4), 2), int(code.bits(payload, 4)), 'bits')
      [ 3.1399999 -1.         0.5       -2.       ] 64 bits
    """
    return _cast("bf16", jnp.bfloat16)


def fp16() -> Compressor:
    """Returns the cast to IEEE half precision: 5 bits of exponent, 11 of precision.

    Numbers beyond the largest half, 65,504, become that; below 6.1e-5 the absolute error is at most
    2^-25, which no contraction bounds: updates are often that small, and bfloat16 or a scaled
    quantizer then keeps more. No alpha is given therefore.

    Wire format: 16 d bits.

    Example:
      >>> code, x = compression.fp16(), jnp.array([3.1416, -1.0, 0.5, -2.0])
      >>> payload = code.encode(jax.random.key(0), x)
      >>> print(jnp.round(code.decode(payload, 4), 2), int(code.bits(payload, 4)), 'bits')
      [ 3.1399999 -1.         0.5       -2.       ] 64 bits
    """
    return _cast("fp16", jnp.float16)


def _cast(name: str, dtype: Any) -> Compressor:
    largest = float(jnp.finfo(dtype).max)
    return fixed_size(
        name,
        "none",
        encode=lambda key, x: {"values": jnp.clip(x, -largest, largest).astype(dtype)},
        decode=lambda payload, d: payload["values"].astype(jnp.float32),
        layout=lambda d: {"values": wire.floats((d,), dtype)},
        alpha=(lambda d: 1 - 2.0**-16) if dtype == jnp.bfloat16 else None,
    )
