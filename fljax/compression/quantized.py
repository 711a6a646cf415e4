"""Rounds coordinates to a few equidistant levels: QSGD, integers, the range between two bounds.

Symmetric levels are integers from -s to s with s = 2^(bits - 1) - 1, so that a zero stays a zero.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np

from fljax.compression import wire
from fljax.compression.compressor import Compressor, fixed_size
from fljax.compression.compressor_arguments import check_range, check_switch, is_traced, shown
from fljax.compression.vectors import flat, in_rows
from fljax_kernels.quantize import (
    dequantize_range,
    dequantize_symmetric,
    euclidean_norm,
    largest_magnitude,
    quantize_range,
    quantize_symmetric,
    value_range,
)


def qsgd(bits: int | jax.Array = 8, *, bucket: int | None = 512) -> Compressor:
    """Returns QSGD: unbiased random rounding, in units of a bucket's Euclidean norm.

    |x_i| / norm is rounded up or down to a multiple of 1 / s, so that its mean stays. Alistarh et
    al. 2017 (arXiv:1610.02132), Section 3; buckets as in its experiments.

    Args:
      bits: 2 to 8 for a coordinate, its sign included; s = 2^(bits - 1) - 1 levels beside zero.
      bucket: Consecutive coordinates that share a norm; None takes them all.

    Wire format: ceil(d / bucket) norms (32 bits each), then d levels: bits d + 32 ceil(d / bucket)
    bits. omega = min(b / s^2, sqrt(b) / s) with b = min(bucket, d).

    Example:
      >>> code, x = compression.qsgd(4), jnp.array([3.0, -1.0, 0.5, -2.0])
      >>> payload = code.encode(jax.random.key(0), x)
      >>> print(jnp.round(code.decode(payload, 4), 2), int(code.bits(payload, 4)), 'bits')
      [ 2.7       -1.0799999  0.        -1.62     ] 48 bits
    """
    check_range("bits", bits, 2, 8)
    if bucket is not None:
        check_range("bucket", bucket, 1, 2**31 - 1)
    bits = _whole(bits)
    level = (1 << (bits - 1)) - 1

    def size(d):
        return min(bucket or d, d)

    def encode(key, x):
        rows = in_rows(x, size(x.size))
        norms = euclidean_norm(rows)
        levels = quantize_symmetric(rows, norms, level, jax.random.split(key, norms.size))
        return {"norms": norms, "levels": levels}

    def decode(payload, d):
        levels, norms = (jnp.asarray(payload[name]) for name in ("levels", "norms"))
        return flat(dequantize_symmetric(levels, norms, level), d)

    return fixed_size(
        f"qsgd({shown(bits)})",
        "Alistarh et al. 2017, arXiv:1610.02132",
        encode,
        decode,
        layout=lambda d: {
            "norms": wire.floats((-(-d // size(d)),)),
            "levels": wire.first(d, wire.unsigned((-(-d // size(d)), size(d)), bits, np.uint8)),
        },
        omega=lambda d: min(size(d) / level**2, math.sqrt(size(d)) / level),
    )


def int8(
    *, stochastic: bool = False, channels: int | None = None, bits: int | jax.Array = 8
) -> Compressor:
    """Returns symmetric integer quantization, in steps of the largest magnitude / s.

    Per tensor with `uplink(int8(), per_leaf=True)`. Per channel, the last axis of a tensor:
    `uplink(int8_channels)`. Without `per_leaf` one scale serves the whole model.

    Args:
      stochastic: Random rounding, which is unbiased, instead of rounding to nearest even.
      channels: Length of the last axis; each of its entries has a scale of its own.
      bits: 2 to 8.

    Wire format: 1 scale or `channels` of them (32 bits each), then d levels: bits d + 32 channels.
    Nearest: alpha = max(1 / d, 1 - d / (4 s^2)); stochastic: omega = d / (4 s^2); with c channels
    d / c takes the place of d. Per channel: Krishnamoorthi 2018 (arXiv:1806.08342).

    Example:
      >>> code, x = compression.int8(), jnp.array([3.0, -1.0, 0.5, -2.0])
      >>> payload = code.encode(jax.random.key(0), x)
      >>> print(jnp.round(code.decode(payload, 4), 2), int(code.bits(payload, 4)), 'bits')
      [ 3.         -0.98999995  0.5        -2.01      ] 64 bits
    """
    check_range("bits", bits, 2, 8)
    check_switch("stochastic", stochastic)
    bits, rows = _whole(bits), channels or 1
    level = (1 << (bits - 1)) - 1

    def encode(key, x):
        if x.size % rows:
            raise ValueError(
                f"A vector of {x.size} numbers is no tensor whose last axis has {rows} channels."
            )
        by_channel = x.reshape(-1, rows).T
        scales = largest_magnitude(by_channel)
        keys = jax.random.split(key, rows) if stochastic else None
        levels = quantize_symmetric(by_channel, scales, level, keys)
        return {"scales": scales, "levels": levels.T.reshape(-1)}

    def decode(payload, d):
        levels = jnp.asarray(payload["levels"]).reshape(-1, rows).T
        x = dequantize_symmetric(levels, jnp.asarray(payload["scales"]), level)
        return x.T.reshape(-1)

    def error(d):
        return d / rows / (4 * level**2)

    return fixed_size(
        f"int{shown(bits)}" + ("" if channels is None else f", {channels} channels"),
        "Krishnamoorthi 2018, arXiv:1806.08342",
        encode,
        decode,
        layout=lambda d: {
            "scales": wire.floats((rows,)),
            "levels": wire.unsigned((d,), bits, np.uint8),
        },
        omega=error if stochastic else None,
        alpha=None if stochastic else lambda d: max(rows / d, 1 - error(d)),
    )


def int8_channels(shape: tuple[int, ...]) -> Compressor:
    """Returns `int8` with a scale for each entry of a tensor's last axis, one for a vector.

    Example:
      >>> code, x = compression.int8_channels((2, 2)), jnp.array([3.0, -1.0, 0.5, -2.0])
      >>> payload = code.encode(jax.random.key(0), x)
      >>> print(jnp.round(code.decode(payload, 4), 2), int(code.bits(payload, 4)), 'bits')
      [ 3.   -1.01  0.5  -2.  ] 96 bits
    """
    return int8(channels=shape[-1] if len(shape) > 1 else None)


def uniform(bits: int | jax.Array = 8) -> Compressor:
    """Returns unbiased random rounding to 2^bits levels between the smallest and largest entry.

    Suresh et al. 2017 (arXiv:1611.00429), Section 2.2. It does not keep zeros.

    Args:
      bits: 1 to 8.

    Wire format: the two bounds (32 bits each), then d levels: bits d + 64 bits.
    omega = d / (2 (2^bits - 1)^2).

    Example:
      >>> code, x = compression.uniform(2), jnp.array([3.0, -1.0, 0.5, -2.0])
      >>> payload = code.encode(jax.random.key(0), x)
      >>> print(jnp.round(code.decode(payload, 4), 2), int(code.bits(payload, 4)), 'bits')
      [ 3.         -0.32999998 -0.32999998 -2.        ] 72 bits
    """
    check_range("bits", bits, 1, 8)
    bits = _whole(bits)
    levels = 1 << bits

    def encode(key, x):
        low, high = value_range(x)
        return {"low": low, "high": high, "levels": quantize_range(x, low, high, levels, key)}

    def decode(payload, d):
        low, high = jnp.asarray(payload["low"]), jnp.asarray(payload["high"])
        return dequantize_range(jnp.asarray(payload["levels"]), low, high, levels)

    return fixed_size(
        f"uniform({shown(bits)})",
        "Suresh et al. 2017, arXiv:1611.00429",
        encode,
        decode,
        layout=lambda d: {
            "low": wire.floats(),
            "high": wire.floats(),
            "levels": wire.unsigned((d,), bits, np.uint8),
        },
        omega=lambda d: d / (2 * (levels - 1) ** 2),
    )


def _whole(bits: int | jax.Array) -> int | jax.Array:
    """Returns a number of bits as an integer; a traced one arrives as a floating-point number."""
    return jnp.round(bits).astype(jnp.int32) if is_traced(bits) else bits
