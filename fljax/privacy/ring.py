"""Numbers of the ring of 2^64 elements, in which secret shares are added and multiplied.

Where JAX has 64 bits enabled an array of them is uint64; otherwise each is two uint32 limbs, the
lower one first, on a last axis of size 2. Both compute the same bits.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

__all__ = [
    "add", "decode", "encode", "matmul", "multiply", "negative", "random", "shape_of", "shift",
    "subtract", "total", "wraps",
]  # fmt: skip

BITS = 64
_HALF = 16


def is_wide() -> bool:
    """Returns whether a number of the ring is one uint64, not two limbs."""
    return bool(jax.config.jax_enable_x64)


def shape_of(numbers: jax.Array) -> tuple[int, ...]:
    """Returns the shape of an array of numbers, which limbs are no part of.

    Example:
      >>> ring.shape_of(ring.encode(jnp.ones((2, 3)), 16))
      (2, 3)
    """
    return numbers.shape if numbers.dtype == jnp.uint64 else numbers.shape[:-1]


@functools.partial(jax.jit, static_argnames="shape")
def random(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Returns uniformly distributed numbers.

    Example:
      >>> ring.shape_of(ring.random(jax.random.key(0), (4,)))
      (4,)
    """
    limbs = jax.random.bits(key, (*shape, 2), jnp.uint32)
    return _wide(limbs) if is_wide() else limbs


@functools.partial(jax.jit, static_argnames="fractional_bits")
def encode(values: jax.Array, fractional_bits: int) -> jax.Array:
    """Returns round(value x 2^fractional_bits) in two's complement, modulo 2^64.

    Args:
      values: Floating-point numbers, smaller in magnitude than 2^(63 - fractional_bits).
      fractional_bits: Bits behind the point.

    Example:
      >>> ring.decode(ring.encode(jnp.array([1.5, -0.25]), 16), 16).tolist()
      [1.5, -0.25]
    """
    scaled = jnp.round(jnp.asarray(values) * 2.0**fractional_bits)
    if is_wide():
        return scaled.astype(jnp.int64).astype(jnp.uint64)
    # magnitude and sign: a float32 holds both limbs of a magnitude exactly
    size = jnp.abs(scaled)
    high = jnp.floor(size * 2.0**-32)
    low = size - high * 2.0**32
    limbs = jnp.stack([low.astype(jnp.uint32), high.astype(jnp.uint32)], axis=-1)
    return jnp.where((scaled < 0)[..., None], negative(limbs), limbs)


@functools.partial(jax.jit, static_argnames="fractional_bits")
def decode(numbers: jax.Array, fractional_bits: int) -> jax.Array:
    """Returns the floating-point numbers that were encoded.

    Example:
      >>> ring.decode(ring.encode(jnp.array([-3.0]), 8), 8).tolist()
      [-3.0]
    """
    if numbers.dtype == jnp.uint64:
        return numbers.astype(jnp.int64).astype(jnp.float64) * 2.0**-fractional_bits
    is_below = numbers[..., 1] >> 31 == 1
    size = jnp.where(is_below[..., None], negative(numbers), numbers).astype(jnp.float32)
    value = size[..., 0] * 2.0**-fractional_bits + size[..., 1] * 2.0 ** (32 - fractional_bits)
    return jnp.where(is_below, -value, value)


@jax.jit
def add(first: jax.Array, second: jax.Array) -> jax.Array:
    """Returns first + second modulo 2^64.

    Example:
      >>> one = ring.encode(jnp.ones(1), 0)
      >>> ring.decode(ring.add(one, one), 0).tolist()
      [2.0]
    """
    if first.dtype == jnp.uint64:
        return first + second
    low = first[..., 0] + second[..., 0]
    carry = (low < first[..., 0]).astype(jnp.uint32)
    return jnp.stack([low, first[..., 1] + second[..., 1] + carry], axis=-1)


@jax.jit
def negative(numbers: jax.Array) -> jax.Array:
    """Returns -numbers modulo 2^64.

    Example:
      >>> ring.decode(ring.negative(ring.encode(jnp.ones(1), 0)), 0).tolist()
      [-1.0]
    """
    if numbers.dtype == jnp.uint64:
        return -numbers
    low, high = numbers[..., 0], numbers[..., 1]
    return jnp.stack([-low, ~high + (low == 0).astype(jnp.uint32)], axis=-1)


@jax.jit
def subtract(first: jax.Array, second: jax.Array) -> jax.Array:
    """Returns first - second modulo 2^64.

    Example:
      >>> one = ring.encode(jnp.ones(1), 0)
      >>> ring.decode(ring.subtract(one, one), 0).tolist()
      [0.0]
    """
    return add(first, negative(second))


@jax.jit
def total(numbers: jax.Array) -> jax.Array:
    """Returns the sum over the first axis modulo 2^64; that axis has at most 65,536 entries.

    Example:
      >>> ring.decode(ring.total(ring.encode(jnp.array([1.0, 2.0, -4.0]), 0)), 0).tolist()
      -1.0
    """
    if numbers.dtype == jnp.uint64:
        return numbers.sum(0)
    # quarters of 16 bits leave room for the carries of 65,536 terms
    quarters = jnp.stack([numbers & 0xFFFF, numbers >> _HALF], axis=-1)
    quarters = quarters.reshape(*numbers.shape[:-1], 4).sum(0, dtype=jnp.uint32)
    return _of_quarters(quarters)


@jax.jit
def multiply(first: jax.Array, second: jax.Array) -> jax.Array:
    """Returns first x second modulo 2^64.

    Example:
      >>> minus_two = ring.encode(jnp.array([-2.0]), 0)
      >>> ring.decode(ring.multiply(minus_two, minus_two), 0).tolist()
      [4.0]
    """
    if first.dtype == jnp.uint64:
        return first * second
    low, carried = _long_product(first[..., 0], second[..., 0])
    high = carried + first[..., 0] * second[..., 1] + first[..., 1] * second[..., 0]
    return jnp.stack([low, high], axis=-1)


@jax.jit
def matmul(first: jax.Array, second: jax.Array) -> jax.Array:
    """Returns the matrix product [M, K] x [K, N] modulo 2^64; K is at most 65,536.

    Example:
      >>> square = ring.encode(jnp.array([[1.0, 2.0], [3.0, 4.0]]), 0)
      >>> ring.decode(ring.matmul(square, square), 0).tolist()
      [[7.0, 10.0], [15.0, 22.0]]
    """
    if first.dtype == jnp.uint64:
        return (first[:, :, None] * second[None]).sum(1)
    columns = jnp.moveaxis(first, 1, 0)
    return total(multiply(columns[:, :, None], second[:, None]))


@functools.partial(jax.jit, static_argnames="bits")
def shift(numbers: jax.Array, bits: int) -> jax.Array:
    """Returns floor(number / 2^bits) of numbers in two's complement; `bits` is 1 to 31.

    Example:
      >>> ring.decode(ring.shift(ring.encode(jnp.array([8.0, -8.0]), 0), 2), 0).tolist()
      [2.0, -2.0]
    """
    if numbers.dtype == jnp.uint64:
        return (numbers.astype(jnp.int64) >> bits).astype(jnp.uint64)
    low, high = numbers[..., 0], numbers[..., 1]
    moved = (low >> bits) | (high << (32 - bits))
    kept = (high.astype(jnp.int32) >> bits).astype(jnp.uint32)
    return jnp.stack([moved, kept], axis=-1)


@jax.jit
def wraps(shares: jax.Array) -> jax.Array:
    """Returns how often the sum over the first axis, of signed numbers, leaves the signed range.

    Args:
      shares: [P, ...] numbers in two's complement.

    Returns:
      int32[...] number of times that 2^64 was subtracted; negative where it was added.

    Example:
      >>> big = ring.encode(jnp.array([2.0**62, 2.0**62]), 0)
      >>> int(ring.wraps(big))
      1
    """
    count = jnp.zeros(shape_of(shares)[1:], jnp.int32)
    partial = shares[0]
    for share in shares[1:]:
        sum_ = add(partial, share)
        was, other, now = (_is_below_zero(numbers) for numbers in (partial, share, sum_))
        count += jnp.where(~was & ~other & now, 1, 0) - jnp.where(was & other & ~now, 1, 0)
        partial = sum_
    return count


@functools.partial(jax.jit, static_argnames="number")
def times(count: jax.Array, number: int) -> jax.Array:
    """Returns a small signed integer times a number of the ring."""
    limbs = jnp.array([number & 0xFFFFFFFF, number >> 32 & 0xFFFFFFFF], jnp.uint32)
    ring_number = _wide(limbs) if is_wide() else limbs
    sign = jnp.where(count < 0, jnp.uint32(0xFFFFFFFF), jnp.uint32(0))
    counts = jnp.stack([count.astype(jnp.uint32), sign], axis=-1)
    counts = _wide(counts) if is_wide() else counts
    return multiply(counts, jnp.broadcast_to(ring_number, counts.shape))


def _is_below_zero(numbers: jax.Array) -> jax.Array:
    if numbers.dtype == jnp.uint64:
        return numbers >> 63 == 1
    return numbers[..., 1] >> 31 == 1


def _wide(limbs: jax.Array) -> jax.Array:
    """Returns two limbs as one uint64."""
    low, high = limbs[..., 0].astype(jnp.uint64), limbs[..., 1].astype(jnp.uint64)
    return low | (high << jnp.uint64(32))


def _of_quarters(quarters: jax.Array) -> jax.Array:
    """Returns the limbs of four sums, each of them of quarters of 16 bits."""
    carried = jnp.zeros_like(quarters[..., 0])
    digits = []
    for place in range(4):
        digit = quarters[..., place] + carried
        digits.append(digit & 0xFFFF)
        carried = digit >> _HALF
    limbs = [digits[0] | digits[1] << _HALF, digits[2] | digits[3] << _HALF]
    return jnp.stack(limbs, axis=-1)


def _long_product(first: jax.Array, second: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns (lower limb, upper limb) of the product of two limbs."""
    a0, a1 = first & 0xFFFF, first >> _HALF
    b0, b1 = second & 0xFFFF, second >> _HALF
    middle = a1 * b0 + (a0 * b0 >> _HALF)
    other = a0 * b1 + (middle & 0xFFFF)
    high = a1 * b1 + (middle >> _HALF) + (other >> _HALF)
    return first * second, high
