"""Sends some coordinates and where they are: the largest, random ones, those above a threshold."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fljax.compression import wire
from fljax.compression.compressor import Compressor, fixed_size, in_program_only
from fljax.compression.compressor_arguments import (
    check_choice,
    check_fraction,
    check_switch,
    is_traced,
    shown,
)
from fljax_kernels import random_k, top_k_mask
from fljax_kernels import top_k as largest

_FORMATS = ("smallest", "raw", "bitmap")
# The codes that send some coordinates, of which `fraction` says how many.
SPARSE = ("top_k", "rand_k", "prune")


class IndexBits(NamedTuple):
    """The size of the positions of k of d coordinates, in bits.

    Attributes:
      raw: k positions of ceil(log2 d) bits.
      bitmap: One bit a coordinate.
      entropy: log2 of the number of ways to choose k of d, below which no code of equally likely
        choices goes on average; a bound, no format.
    """

    raw: int
    bitmap: int
    entropy: float


def index_bits(k: int, d: int) -> IndexBits:
    """Returns what positions cost.

    Example:
      >>> bits = compression.index_bits(k=100, d=10_000)
      >>> bits.raw, bits.bitmap, round(bits.entropy)
      (1400, 10000, 803)
    """
    ways = math.lgamma(d + 1) - math.lgamma(k + 1) - math.lgamma(d - k + 1)
    return IndexBits(k * math.ceil(math.log2(d)), d, ways / math.log(2))


def kept(fraction: float | jax.Array, d: int) -> int | jax.Array:
    """Returns how many of d coordinates a fraction is: to the nearest, but at least one.

    A traced fraction is rounded in its own precision, which may come to one more or less.
    """
    if is_traced(fraction):
        return jnp.clip(jnp.round(fraction * d), 1, d).astype(jnp.int32)
    return max(1, round(fraction * d))


def top_k(fraction: float | jax.Array, *, index_format: str = "smallest") -> Compressor:
    """Returns the compressor that keeps the coordinates of largest magnitude.

    Of equal magnitudes the first ones are kept. Stich et al. 2018 (arXiv:1809.07599).

    Args:
      fraction: Share of the coordinates that are sent; k = max(1, round(fraction d)). Of a traced
        one the payload is the vector with zeros for what is not sent; its size is counted alike.
      index_format: "raw" (positions), "bitmap", or "smallest" of the two; see `index_bits`.

    Wire format: the positions, then k values (32 bits each): k (32 + ceil(log2 d)) bits raw,
    d + 32 k as a bitmap. alpha = k / d.

    Example:
      >>> code, x = compression.top_k(0.5), jnp.array([3.0, -1.0, 0.5, -2.0])
      >>> payload = code.encode(jax.random.key(0), x)
      >>> print(jnp.round(code.decode(payload, 4), 2), int(code.bits(payload, 4)), 'bits')
      [ 3.  0.  0. -2.] 68 bits
    """
    check_fraction("fraction", fraction)
    check_choice("index_format", index_format, _FORMATS)
    if is_traced(fraction):
        return _traced_top_k(fraction, index_format)

    def encode(key, x):
        values, index = largest(x, kept(fraction, x.size))
        return {"index": index, "values": values}

    return fixed_size(
        f"top_k({fraction:g})",
        "Stich et al. 2018, arXiv:1809.07599",
        encode,
        _scattered,
        _layout(fraction, index_format),
        alpha=lambda d: kept(fraction, d) / d,
    )


def _traced_top_k(fraction: jax.Array, index_format: str) -> Compressor:
    def encode(key, x):
        return {"kept": jnp.where(top_k_mask(x, kept(fraction, x.size)), x, 0)}

    def bits(payload, d):
        k, width = kept(fraction, d).astype(jnp.uint32), payload["kept"].dtype.itemsize * 8
        raw, bitmap = k * math.ceil(math.log2(d)), jnp.uint32(d)
        index = {"raw": raw, "bitmap": bitmap, "smallest": jnp.minimum(raw, bitmap)}[index_format]
        return index + k * width

    return in_program_only(
        f"top_k({shown(fraction)})",
        "Stich et al. 2018, arXiv:1809.07599",
        encode,
        lambda payload, d: payload["kept"],
        bits,
    )


def rand_k(fraction: float, *, unbiased: bool = True, index_format: str = "smallest") -> Compressor:
    """Returns the compressor that keeps random coordinates, a new set for each message.

    Args:
      fraction: Share of the coordinates that are sent; k = max(1, round(fraction d)).
      unbiased: Whether the server multiplies what it receives by d / k.
      index_format: "raw", "bitmap" or "smallest", as for `top_k`; or "seed": the positions follow
        from a random key of 64 bits, which is sent instead.

    Wire format: the positions (or 64 bits), then k values (32 bits each): k (32 + ceil(log2 d))
    bits raw, d + 32 k as a bitmap, 64 + 32 k with a seed. omega = d / k - 1 if unbiased, else
    alpha = k / d. Stich et al. 2018 (arXiv:1809.07599); Konecny et al. 2016 (arXiv:1610.05492).

    Example:
      >>> code, x = compression.rand_k(0.5), jnp.array([3.0, -1.0, 0.5, -2.0])
      >>> payload = code.encode(jax.random.key(0), x)
      >>> print(jnp.round(code.decode(payload, 4), 2), int(code.bits(payload, 4)), 'bits')
      [ 6. -2.  0.  0.] 68 bits
    """
    check_fraction("fraction", fraction)
    check_switch("unbiased", unbiased)
    seeded = index_format == "seed"
    if not seeded:
        check_choice("index_format", index_format, _FORMATS)

    def drawn(key, d):
        return random_k(key, d, kept(fraction, d))

    def encode(key, x):
        index = drawn(key, x.size)
        if seeded:
            return {"seed": jax.random.key_data(key), "values": x[index]}
        return {"index": index, "values": x[index]}

    def decode(payload, d):
        scale = d / kept(fraction, d) if unbiased else 1
        if seeded:
            key = jax.random.wrap_key_data(payload["seed"], impl="threefry2x32")
            payload = {"index": drawn(key, d), "values": payload["values"]}
        return _scattered(payload, d) * scale

    def seeded_layout(d):
        return {
            "seed": wire.unsigned((2,), 32, np.uint32),
            "values": wire.floats((kept(fraction, d),)),
        }

    return fixed_size(
        f"rand_k({fraction:g})",
        "Stich et al. 2018, arXiv:1809.07599",
        encode,
        decode,
        seeded_layout if seeded else _layout(fraction, index_format),
        omega=(lambda d: d / kept(fraction, d) - 1) if unbiased else None,
        alpha=None if unbiased else lambda d: kept(fraction, d) / d,
    )


def prune(fraction: float | jax.Array) -> Compressor:
    """Returns the compressor that keeps what reaches a threshold of magnitude.

    The threshold is the magnitude that a fixed share of the coordinates reach: unlike `top_k`, it
    keeps all of equal ones, and never a zero. With `uplink(..., per_leaf=True)` every tensor has
    its own threshold (magnitude pruning: Han et al. 2015, arXiv:1506.02626).

    Args:
      fraction: Share of the coordinates that reach the threshold.

    Wire format: a bitmap of d bits, then the values that are kept (32 bits each); the size depends
    on the values. alpha = max(1, round(fraction d)) / d.

    Example:
      >>> code, x = compression.prune(0.5), jnp.array([3.0, -1.0, 0.5, -2.0])
      >>> payload = code.encode(jax.random.key(0), x)
      >>> print(jnp.round(code.decode(payload, 4), 2), int(code.bits(payload, 4)), 'bits')
      [ 3.  0.  0. -2.] 68 bits
    """
    check_fraction("fraction", fraction)

    def encode(key, x):
        magnitude = jnp.abs(x)
        reach = top_k_mask(x, kept(fraction, x.size))
        threshold = jnp.where(reach, magnitude, jnp.inf).min()
        return {"pruned": jnp.where(magnitude >= threshold, x, 0)}

    def bits(payload, d):
        x = payload["pruned"]
        width = x.dtype.itemsize * 8
        wire.count(d * (1 + width))
        # denormal numbers are zeros to a processor that flushes them, but not to `serialize`
        words = jax.lax.bitcast_convert_type(x, f"uint{width}") << 1
        return jnp.uint32(d) + jnp.count_nonzero(words).astype(jnp.uint32) * width

    def layout(d, count):
        return {"index": wire.bitmap(count, d), "values": wire.floats((count,))}

    def serialize(payload, d):
        x = np.asarray(payload["pruned"])
        index = np.flatnonzero(x)
        return wire.to_bytes(layout(d, index.size), {"index": index, "values": x[index]})

    def deserialize(message, d):
        count = int(np.unpackbits(np.frombuffer(message, np.uint8), bitorder="little")[:d].sum())
        payload = wire.from_bytes(layout(d, count), message)
        x = np.zeros(d, np.float32)
        x[payload["index"]] = payload["values"]
        return {"pruned": x}

    return Compressor(
        f"prune({shown(fraction)})",
        "Han et al. 2015, arXiv:1506.02626",
        encode,
        lambda payload, d: payload["pruned"],
        bits,
        serialize,
        deserialize,
        alpha=lambda d: kept(fraction, d) / d,
    )


def _scattered(payload, d: int) -> jax.Array:
    values = jnp.asarray(payload["values"])
    # both promises are true of what the kernels return, and of what a message holds
    return (
        jnp.zeros(d, values.dtype)
        .at[payload["index"]]
        .set(values, unique_indices=True, indices_are_sorted=True)
    )


def _by_bitmap(index_format: str, k: int, d: int) -> bool:
    sizes = index_bits(k, d)
    return index_format == "bitmap" or (index_format == "smallest" and sizes.bitmap < sizes.raw)


def _layout(fraction: float, index_format: str) -> Callable[[int], wire.Layout]:
    def layout(d):
        k = kept(fraction, d)
        field = wire.bitmap if _by_bitmap(index_format, k, d) else wire.positions
        return {"index": field(k, d), "values": wire.floats((k,))}

    return layout
