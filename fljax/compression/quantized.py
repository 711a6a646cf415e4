"""Coordinates rounded to a few levels: QSGD, and 8 bits a tensor or a channel.

Levels are integers from -s to s with s = 2^(bits - 1) - 1, symmetric around zero, so that a zero
stays a zero.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np

from fljax.compression import wire
from fljax.compression.checks import check_range
from fljax.compression.compressor import Compressor, fixed_size


def qsgd(bits: int = 8, *, bucket: int | None = 512) -> Compressor:
    """Returns QSGD: unbiased random rounding, in units of a bucket's Euclidean norm.

    |x_i| / norm is rounded up or down to a multiple of 1 / s, so that its mean stays. Alistarh et
    al. 2017 (arXiv:1610.02132), Section 3; buckets as in its experiments.

    Args:
      bits: 2 to 16 for a coordinate, its sign included; s = 2^(bits - 1) - 1 levels beside zero.
      bucket: Consecutive coordinates that share a norm; None takes them all.

    Wire format: ceil(d / bucket) norms (32 bits each), then d levels: d bits + 32 ceil(d / bucket)
    bits. omega = min(b / s^2, sqrt(b) / s) with b = min(bucket, d).
    """
    check_range("bits", bits, 2, 16)
    levels = 2 ** (bits - 1) - 1

    def size(d):
        return min(bucket or d, d)

    def encode(key, x):
        rows = _rows(x, size(x.size))
        norm = jnp.sqrt(jnp.sum(rows * rows, axis=1))
        scaled = rows * (levels / _nonzero(norm))[:, None]
        noise = jax.random.uniform(key, x.shape, scaled.dtype)
        codes = jnp.floor(scaled.reshape(-1)[: x.size] + noise)
        # the norm of a lone coordinate may be rounded below it
        codes = jnp.clip(codes, -levels, levels)
        return {"norms": norm, "levels": codes.astype(_integer(bits))}

    def decode(payload, d):
        norms = jnp.asarray(payload["norms"])
        return _scaled(payload["levels"], norms / levels, size(d))

    return fixed_size(
        f"qsgd({bits})",
        "Alistarh et al. 2017, arXiv:1610.02132",
        encode,
        decode,
        layout=lambda d: {
            "norms": wire.floats((-(-d // size(d)),)),
            "levels": wire.signed((d,), bits, _integer(bits)),
        },
        omega=lambda d: min(size(d) / levels**2, math.sqrt(size(d)) / levels),
    )


def int8(*, stochastic: bool = False, channels: int | None = None, bits: int = 8) -> Compressor:
    """Returns symmetric integer quantization: steps of the largest magnitude / s.

    Per tensor with `uplink(int8(), per_leaf=True)`. Per channel, the last axis of a tensor:
    `uplink(int8_channels)`. Without `per_leaf` one scale serves the whole model.

    Args:
      stochastic: Random rounding, which is unbiased, instead of rounding to nearest even.
      channels: Length of the last axis; each of its entries has a scale of its own.
      bits: 2 to 16.

    Wire format: 1 scale or `channels` of them (32 bits each), then d levels: d bits + 32 channels.
    Nearest: alpha = max(1 / d, 1 - d / (4 s^2)); stochastic: omega = d / (4 s^2); with c channels
    d / c takes the place of d (and 1 / d stays). Per channel: Krishnamoorthi 2018
    (arXiv:1806.08342).
    """
    check_range("bits", bits, 2, 16)
    levels = 2 ** (bits - 1) - 1
    columns = channels or 1

    def rows(x):
        if x.size % columns:
            raise ValueError(
                f"A vector of {x.size} numbers is no tensor whose last axis has {columns} channels."
            )
        return x.reshape(-1, columns)

    def encode(key, x):
        matrix = rows(x)
        step = jnp.abs(matrix).max(axis=0) / levels
        scaled = matrix * (1 / _nonzero(step))
        if stochastic:
            scaled = jnp.floor(scaled + jax.random.uniform(key, scaled.shape, scaled.dtype))
        codes = jnp.clip(jnp.round(scaled), -levels, levels)
        return {"steps": step, "levels": codes.reshape(-1).astype(_integer(bits))}

    def decode(payload, d):
        steps = jnp.asarray(payload["steps"])
        return (rows(jnp.asarray(payload["levels"])).astype(steps.dtype) * steps).reshape(-1)

    def error(d):
        return d / columns / (4 * levels**2)

    return fixed_size(
        f"int{bits}" + ("" if channels is None else f", {channels} channels"),
        "Krishnamoorthi 2018, arXiv:1806.08342",
        encode,
        decode,
        layout=lambda d: {
            "steps": wire.floats((columns,)),
            "levels": wire.signed((d,), bits, _integer(bits)),
        },
        omega=error if stochastic else None,
        alpha=None if stochastic else lambda d: max(1 / d, 1 - error(d)),
    )


def int8_channels(shape: tuple[int, ...]) -> Compressor:
    """Returns `int8` with a scale for each entry of a tensor's last axis, one for a vector."""
    return int8(channels=shape[-1] if len(shape) > 1 else None)


def _integer(bits: int):
    return np.int8 if bits <= 8 else np.int16


def _nonzero(scale: jax.Array) -> jax.Array:
    return jnp.where(scale == 0, 1, scale)


def _rows(x: jax.Array, size: int) -> jax.Array:
    """Returns x[d] as rows of a bucket each, the last one filled up with zeros."""
    return jnp.pad(x, (0, -x.size % size)).reshape(-1, size)


def _scaled(levels: jax.Array, steps: jax.Array, size: int) -> jax.Array:
    """Returns the levels[d] times the step of their bucket."""
    levels = jnp.asarray(levels)
    return (_rows(levels.astype(steps.dtype), size) * steps[:, None]).reshape(-1)[: levels.size]
