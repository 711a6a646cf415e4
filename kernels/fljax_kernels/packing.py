"""Small unsigned integers packed into bytes, and back.

A group of values fills whole bytes: 8 / b values one byte where b bits divide a byte, 4 values of
6 bits three bytes, 8 values of 3, 5 or 7 bits as many bytes as a value has bits. The values of a
group do not stand side by side in the vector: that would make every value of a byte a strided load,
about four times slower on CPUs. With n whole groups,

    group j     = values j, j + n, j + 2n, ...   value t in bits [t * b, (t + 1) * b)
    group j     = bytes  j, j + n, j + 2n, ...   byte k holds bits [8k, 8k + 8), the lowest first

so that packing and unpacking are shifts of contiguous slices. Values that do not fill a group come
after them, in the same way with n = 1, and fill as many bytes as they need.
"""

from __future__ import annotations

from functools import reduce
from math import gcd
from operator import or_

import jax
import jax.numpy as jnp

from fljax_kernels.stored import stored


def packed_size(size: int, bits: int) -> int:
    """Returns the bytes of `size` values: ceil(size * bits / 8)."""
    return -(-size * _checked(bits) // 8)


def pack_bits(values: jax.Array, bits: int) -> jax.Array:
    """Packs unsigned integers.

    Args:
      values: Integers [..., d] in [0, 2 ** bits); higher bits are dropped.
      bits: Bits of a value, 1 to 8; static.

    Returns:
      uint8[..., ceil(d * bits / 8)]; bits without a value are 0.

    Raises:
      ValueError: For other numbers of bits.

    Example:
      >>> pack_bits(jnp.array([1, 2, 3, 0, 1]), bits=2).shape
      (2,)
    """
    group, size = _group(bits), values.shape[-1]
    values = stored(values.astype(jnp.uint8))
    head, tail = jnp.split(values, [size - size % group], axis=-1)
    parts = [_pack(head, bits)]
    if size % group:
        padding = [(0, 0)] * (values.ndim - 1) + [(0, -size % group)]
        tail = _pack(jnp.pad(tail, padding), bits)
        parts.append(tail[..., : packed_size(size % group, bits)])
    return jnp.concatenate(parts, axis=-1)


def unpack_bits(packed: jax.Array, bits: int, size: int) -> jax.Array:
    """Inverts `pack_bits`.

    Args:
      packed: uint8[..., ceil(size * bits / 8)].
      bits: As when they were packed.
      size: Number of values.

    Returns:
      uint8[..., size].

    Raises:
      ValueError: For other numbers of bits, or of bytes.

    Example:
      >>> unpack_bits(pack_bits(jnp.array([1, 2, 3, 0, 1]), bits=2), bits=2, size=5).tolist()
      [1, 2, 3, 0, 1]
    """
    group = _group(bits)
    if packed.shape[-1] != packed_size(size, bits):
        raise ValueError(
            f"{size} values of {bits} bits are {packed_size(size, bits)} bytes, not "
            f"{packed.shape[-1]}."
        )
    rest = size % group
    head, tail = jnp.split(packed, [(size - rest) * bits // 8], axis=-1)
    parts = [_unpack(head, bits)]
    if rest:
        padding = [(0, 0)] * (packed.ndim - 1) + [(0, group * bits // 8 - tail.shape[-1])]
        parts.append(_unpack(jnp.pad(tail, padding), bits)[..., :rest])
    return stored(jnp.concatenate(parts, axis=-1))


def _pack(values, bits):
    """Packs whole groups."""
    planes = _planes(values, _group(bits))
    total = len(planes) * bits // 8

    def byte(k):
        # value t begins at bit t * bits - 8k of byte k
        places = ((plane & _mask(bits), t * bits - 8 * k) for t, plane in enumerate(planes))
        return reduce(
            or_,
            (
                plane << place if place >= 0 else plane >> -place
                for plane, place in places
                if -bits < place < 8
            ),
        )

    return jnp.concatenate([byte(k) for k in range(total)], axis=-1)


def _unpack(packed, bits):
    """Unpacks whole groups."""
    group = _group(bits)
    planes = _planes(packed, group * bits // 8)

    def value(t):
        k, place = divmod(t * bits, 8)
        low = planes[k] >> place
        if place + bits > 8:
            low = low | (planes[k + 1] << (8 - place))
        return low & _mask(bits)

    return jnp.concatenate([value(t) for t in range(group)], axis=-1)


def _planes(x: jax.Array, number: int) -> list[jax.Array]:
    """Returns [..., number * n] as `number` arrays [..., n]."""
    return jnp.split(x, number, axis=-1)


def _mask(bits):
    return jnp.uint8((1 << bits) - 1)


def _group(bits: int) -> int:
    """Returns the number of values that fill whole bytes together."""
    return 8 // gcd(_checked(bits), 8)


def _checked(bits):
    if bits not in range(1, 9):
        raise ValueError(f"bits = {bits!r}; a packed value has 1 to 8 bits.")
    return bits
