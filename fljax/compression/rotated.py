"""Rotates vectors at random, so that all coordinates are alike, and quantizes them.

A rotation changes signs at random and multiplies by a Hadamard matrix, block by block: whole
vectors would have to be filled up to a power of two, up to twice their length.
"""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from fljax.compression import wire
from fljax.compression.compressor import Compressor, fixed_size
from fljax.compression.compressor_arguments import check_range, check_switch
from fljax.compression.vectors import flat, in_rows
from fljax_kernels.hadamard import next_power_of_two, rotate, rotate_back
from fljax_kernels.quantize import dequantize_range, quantize_range, value_range

_BLOCK = 2**15


def rotation(*, block: int = _BLOCK) -> Compressor:
    """Returns the compressor that sends the rotated vector: nothing is lost, nothing saved.

    For `chain(rotation(), ...)`: the rotated coordinates are of similar size, whatever the vector.
    Suresh et al. 2017 (arXiv:1611.00429), Section 3.

    Args:
      block: Coordinates that are rotated together, a power of two; shorter vectors are filled up
        with zeros to the next power of two, longer ones to a multiple of it.

    Wire format: a random key (64 bits), then the rotated coordinates: 64 + 32 d' bits, with
    d' = d filled up. omega = 0, alpha = 1.

    Example:
      >>> code, x = compression.rotation(block=4), jnp.array([3.0, -1.0, 0.5, -2.0])
      >>> payload = code.encode(jax.random.key(0), x)
      >>> print(jnp.round(code.decode(payload, 4), 2), int(code.bits(payload, 4)), 'bits')
      [ 3.  -1.   0.5 -2. ] 192 bits
    """
    _check_block(block)

    def encode(key, x):
        return {"seed": jax.random.key_data(key), "values": _rotated(x, key, block).reshape(-1)}

    def decode(payload, d):
        rows = jnp.asarray(payload["values"]).reshape(-1, _size(d, block))
        return _rotated_back(rows, payload["seed"], d)

    return fixed_size(
        "rotation",
        "Suresh et al. 2017, arXiv:1611.00429",
        encode,
        decode,
        layout=lambda d: _SEED | {"values": wire.floats((_length(d, block),))},
        omega=lambda d: 0.0,
        alpha=lambda d: 1.0,
    )


def rotated_uniform(bits: int = 4, *, block: int = _BLOCK) -> Compressor:
    """Returns unbiased random rounding of each rotated block, between its smallest and largest.

    Suresh et al. 2017 (arXiv:1611.00429), Section 3. A block has bounds of its own: under shared
    ones, what a large block loses would grow with the number of blocks beside it.

    Args:
      bits: 1 to 8.
      block: See `rotation`.

    Wire format: a random key (64 bits), two bounds for each block (32 bits each), then the levels:
    64 + 64 blocks + bits d' bits, with d' = d filled up as in `rotation`.
    omega = min(2 ln b + 2, b / 2) / (2^bits - 1)^2 with b = d' / blocks: every block keeps it.

    Example:
      >>> code, x = compression.rotated_uniform(4, block=4), jnp.array([3.0, -1.0, 0.5, -2.0])
      >>> payload = code.encode(jax.random.key(0), x)
      >>> print(jnp.round(code.decode(payload, 4), 2), int(code.bits(payload, 4)), 'bits')
      [ 3.  -0.9  0.5 -2.1] 144 bits
    """
    check_range("bits", bits, 1, 8)
    _check_block(block)

    def omega(d):
        size = _size(d, block)
        return min(2 * math.log(size) + 2, size / 2) / (2**bits - 1) ** 2

    def encode(key, x):
        rotation_key, rounding_key = (jax.random.fold_in(key, number) for number in range(2))
        rows = _rotated(x, rotation_key, block)
        low, high = value_range(rows)
        keys = rounding_key[None] if low.size == 1 else jax.random.split(rounding_key, low.size)
        levels = quantize_range(rows, low, high, 2**bits, keys)
        seed = jax.random.key_data(rotation_key)
        return {"seed": seed, "low": low, "high": high, "levels": levels.reshape(-1)}

    def decode(payload, d):
        low, high = jnp.asarray(payload["low"]), jnp.asarray(payload["high"])
        levels = jnp.asarray(payload["levels"]).reshape(-1, _size(d, block))
        return _rotated_back(dequantize_range(levels, low, high, 2**bits), payload["seed"], d)

    def layout(d):
        bounds = wire.floats((_length(d, block) // _size(d, block),))
        levels = wire.unsigned((_length(d, block),), bits, np.uint8)
        return _SEED | {"low": bounds, "high": bounds, "levels": levels}

    return fixed_size(
        f"rotated_uniform({bits})",
        "Suresh et al. 2017, arXiv:1611.00429",
        encode,
        decode,
        layout,
        omega=omega,
    )


def drive(*, unbiased: bool = True, block: int = _BLOCK) -> Compressor:
    """Returns DRIVE: the signs of the rotated vector and one scale for each block.

    Vargaftik et al. 2021 (arXiv:2105.08339). The unbiased scale, |x|^2 / |Rx|_1, makes
    <x, x_hat> = |x|^2; with the other one, |Rx|_1 / d', the error is smallest, for
    `error_feedback`. Uniformly random rotations R make the first one unbiased, which is what the
    paper proves; Hadamard's, with random signs, do not. The bias |E x_hat - x| / |x| is small where
    no few entries stand out (of normal ones below 0.03), and large where they do: 0.5 of a vector
    with two entries, one twice the other, which arrives as one; up to 1 of two equal ones; 0.37 of
    one entry in noise of half its size. So it counts as biased: it has no omega, and `diana` and
    `marina` refuse it.

    Args:
      unbiased: Which scale to send, in the paper's words.
      block: See `rotation`.

    Wire format: a random key (64 bits), a scale for each block (32 bits each), then one bit a
    coordinate: 64 + 32 blocks + d' bits, with d' = d filled up as in `rotation`. Unbiased scale: no
    constant is proven for Hadamard's rotations (pi / 2 - 1 for uniform ones and d to infinity), and
    of two equal entries the squared error is |x|^2. Otherwise alpha = 1/2 (by Khintchine's
    inequality, in expectation over the rotation).

    Example:
      >>> code, x = compression.drive(block=4), jnp.array([3.0, -1.0, 0.5, -2.0])
      >>> payload = code.encode(jax.random.key(0), x)
      >>> print(jnp.round(code.decode(payload, 4), 2), int(code.bits(payload, 4)), 'bits')
      [ 2.19 -2.19  2.19 -2.19] 100 bits
    """
    check_switch("unbiased", unbiased)
    code = _with_centroids(1, unbiased, block)
    return code._replace(
        name="drive",
        paper="Vargaftik et al. 2021, arXiv:2105.08339",
        alpha=None if unbiased else lambda d: 0.5,
    )


def eden(bits: int = 2, *, block: int = _BLOCK) -> Compressor:
    """Returns EDEN: coordinates of the rotated vector, rounded to the best levels for normal ones.

    Vargaftik et al. 2022 (arXiv:2108.08842); the scale of a block makes <x, x_hat> = |x|^2.
    Unbiased for uniformly random rotations, which the paper proves, but not for Hadamard's: with 1
    bit it is `drive`, with 2 the bias |E x_hat - x| / |x| is still 0.03 of a vector with two
    entries, one twice the other, and up to 0.3 of two equal ones, with 4 up to 0.1.

    Args:
      bits: 1 to 4.
      block: See `rotation`.

    Wire format: a random key (64 bits), a scale for each block (32 bits each), then the levels:
    64 + 32 blocks + bits d' bits, with d' = d filled up as in `rotation`. No constant is proven for
    Hadamard's rotations.

    Example:
      >>> code, x = compression.eden(2, block=4), jnp.array([3.0, -1.0, 0.5, -2.0])
      >>> payload = code.encode(jax.random.key(0), x)
      >>> print(jnp.round(code.decode(payload, 4), 2), int(code.bits(payload, 4)), 'bits')
      [ 2.61 -0.78  0.78 -2.61] 104 bits
    """
    check_range("bits", bits, 1, 4)
    code = _with_centroids(bits, True, block)
    return code._replace(name=f"eden({bits})", paper="Vargaftik et al. 2022, arXiv:2108.08842")


def _with_centroids(bits: int, unbiased: bool, block: int) -> Compressor:
    """Returns the quantizer of rotated blocks to the Lloyd-Max centroids of the normal law."""
    _check_block(block)
    centroids = normal_centroids(bits)
    bounds = (centroids[1:] + centroids[:-1]) / 2

    def encode(key, x):
        rows = _rotated(x, key, block)
        squared = jnp.sum(rows * rows, axis=1)
        unit = jnp.sqrt(squared / rows.shape[1])[:, None]
        levels = sum((rows > bound * unit).astype(jnp.uint8) for bound in bounds)
        rounded = jnp.asarray(centroids, rows.dtype)[levels]
        overlap = jnp.sum(rows * rounded, axis=1)
        size = jnp.sum(rounded * rounded, axis=1)
        scales = squared / jnp.where(overlap == 0, 1, overlap) if unbiased else overlap / size
        return {"seed": jax.random.key_data(key), "scales": scales, "levels": levels.reshape(-1)}

    def decode(payload, d):
        scales = jnp.asarray(payload["scales"])
        levels = jnp.asarray(payload["levels"]).reshape(-1, _size(d, block))
        rounded = jnp.asarray(centroids, scales.dtype)[levels]
        return _rotated_back(rounded * scales[:, None], payload["seed"], d)

    return fixed_size(
        "",
        "",
        encode,
        decode,
        layout=lambda d: (
            _SEED
            | {
                "scales": wire.floats((_length(d, block) // _size(d, block),)),
                "levels": wire.unsigned((_length(d, block),), bits, np.uint8),
            }
        ),
    )


@functools.cache
def normal_centroids(bits: int) -> np.ndarray:
    """Returns float64[2^bits] ascending levels of least squared error for a normal coordinate.

    Lloyd's iteration: a level is the mean of what is rounded to it. Lloyd 1982; Max 1960.
    """
    levels = np.linspace(-1, 1, 2**bits)
    for _ in range(2_000):
        edges = np.concatenate([[-np.inf], (levels[1:] + levels[:-1]) / 2, [np.inf]])
        density = np.exp(-(edges**2) / 2) / math.sqrt(2 * math.pi)
        below = np.array([(1 + math.erf(edge / math.sqrt(2))) / 2 for edge in edges])
        levels = -np.diff(density) / np.diff(below)
    return levels


_SEED = {"seed": wire.unsigned((2,), 32, np.uint32)}


def _check_block(block: int) -> None:
    check_range("block", block, 1, 2**30)
    if block & (block - 1):
        raise ValueError(f"block must be a power of two, not {block!r}")


def _size(d: int, block: int) -> int:
    return min(block, next_power_of_two(d))


def _length(d: int, block: int) -> int:
    return -(-d // _size(d, block)) * _size(d, block)


def _rotated(x: jax.Array, key: jax.Array, block: int) -> jax.Array:
    rows = in_rows(x, _size(x.size, block))
    return rotate(rows, jax.random.split(key, rows.shape[0]))


def _rotated_back(rows: jax.Array, seed: jax.Array, d: int) -> jax.Array:
    key = jax.random.wrap_key_data(jnp.asarray(seed), impl="threefry2x32")
    return flat(rotate_back(rows, jax.random.split(key, rows.shape[0])), d)
