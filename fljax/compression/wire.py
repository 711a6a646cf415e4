"""Writes messages as bytes: fields of fixed width, one behind the other, without padding.

A layout names the arrays of a payload in the order in which they are sent, and says how many
numbers each one is on the wire and how many bits each number takes. Bits are counted from it while
the round program is traced; bytes are made from it on the host, where the two are compared.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

PyTree = Any


class Field(NamedTuple):
    """One array of a payload on the wire.

    Attributes:
      shape: Shape of the array; () for one number.
      dtype: Its type; of floating-point numbers, that which `from_bytes` expects.
      count: Numbers on the wire.
      width: Bits of each, at most 64; an integer scalar where it is traced; None sends
        floating-point numbers at their own width.
      write: array -> uint64[count] codes.
      read: uint64[count] codes -> array.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    count: int
    width: int | jax.Array | None
    write: Callable[[np.ndarray], np.ndarray]
    read: Callable[[np.ndarray], np.ndarray]


# {name of an array in the payload: Field, or the layout of a payload inside}
Layout = dict[str, Any]


def floats(shape: tuple[int, ...] = (), dtype: Any = np.float32) -> Field:
    """Returns the field of floating-point numbers sent as they are."""

    dtype = np.dtype(dtype)

    def write(array):
        array = np.asarray(array).reshape(-1)
        return array.view(f"u{array.dtype.itemsize}")

    def read(codes):
        return codes.astype(f"u{dtype.itemsize}").view(dtype).reshape(shape)

    return Field(shape, dtype, math.prod(shape), None, write, read)


def unsigned(shape: tuple[int, ...], width: int | jax.Array, dtype: Any) -> Field:
    """Returns the field of integers from 0 to 2^width - 1."""
    return Field(
        shape,
        np.dtype(dtype),
        math.prod(shape),
        width,
        write=lambda array: np.asarray(array).reshape(-1),
        read=lambda codes: codes.astype(dtype).reshape(shape),
    )


def first(count: int, field: Field) -> Field:
    """Returns the field of the first codes of another; those behind them are padding."""
    rest = field.count - count
    return field._replace(
        count=count,
        write=lambda array: field.write(array)[:count],
        read=lambda codes: field.read(np.pad(codes, (0, rest))),
    )


def signed(shape: tuple[int, ...], width: int, dtype: Any) -> Field:
    """Returns the field of integers from -2^(width-1) to 2^(width-1) - 1, in two's complement."""
    offset = 2 ** (width - 1)

    def write(array):
        return np.asarray(array).reshape(-1).astype(np.int64) % (2 * offset)

    def read(codes):
        codes = codes.astype(np.int64)
        return np.where(codes >= offset, codes - 2 * offset, codes).astype(dtype).reshape(shape)

    return Field(shape, np.dtype(dtype), math.prod(shape), width, write, read)


def positions(count: int, d: int) -> Field:
    """Returns the field of `count` positions in a vector, ceil(log2 d) bits each."""
    return unsigned((count,), math.ceil(math.log2(d)), np.int32)


def bitmap(count: int, d: int) -> Field:
    """Returns the field of `count` ascending positions in a vector, one bit a coordinate."""
    return Field(
        (count,),
        np.dtype(np.int32),
        d,
        1,
        write=lambda index: np.isin(np.arange(d), np.asarray(index)),
        read=lambda codes: np.flatnonzero(codes).astype(np.int32),
    )


def base(digits: int, per_code: int, width: int, d: int) -> Field:
    """Returns the field of d digits 0 .. digits - 1, `per_code` of them in a code of `width` bits.

    Three values in 1.6 bits each: five digits of base 3 in a byte.
    """
    powers = digits ** np.arange(per_code)

    def write(array):
        array = np.asarray(array).astype(np.int64)
        return np.pad(array, (0, -d % per_code)).reshape(-1, per_code) @ powers

    def read(codes):
        return (codes.astype(np.int64)[:, None] // powers % digits).reshape(-1)[:d].astype(np.int8)

    return Field((d,), np.dtype(np.int8), -(-d // per_code), width, write, read)


def count(bits: int | jax.Array) -> jax.Array:
    """Returns a number of bits as a uint32 scalar.

    One that is itself traced is taken to fit: numbers take at most as many bits as uncompressed
    ones, which were counted before.

    Raises:
      ValueError: If it takes more than 32 bits.
    """
    if isinstance(bits, jax.Array):
        return bits.astype(jnp.uint32)
    if bits >= 2**32:
        raise ValueError(
            f"A message of {bits / 8e6:,.0f} MB cannot be counted in 32 bits; what a client sends "
            "or receives must stay below 512 MiB."
        )
    return jnp.uint32(bits)


def bits(layout: Layout, payload: PyTree) -> int | jax.Array:
    """Returns the bits of a payload of arrays, or of shapes with their dtypes."""
    return sum(
        bits(field, payload[name])
        if isinstance(field, dict)
        else _times(field.count, _width(field, payload[name].dtype))
        for name, field in layout.items()
    )


def _times(count: int, width: int | jax.Array) -> int | jax.Array:
    return count * (width.astype(jnp.uint32) if isinstance(width, jax.Array) else width)


def to_bytes(layout: Layout, payload: PyTree) -> bytes:
    """Returns a payload as it is sent, the last byte filled up with zeros."""
    return np.packbits(np.concatenate(_written(layout, payload)), bitorder="little").tobytes()


def from_bytes(layout: Layout, message: bytes) -> PyTree:
    """Returns the payload of a message, with NumPy arrays.

    Raises:
      ValueError: If the message is not of the layout's length.
    """
    expected = -(-bits(layout, layout) // 8)  # a field has the dtype of its array
    if len(message) != expected:
        raise ValueError(
            f"The message has {len(message)} bytes, but this compressor makes messages of "
            f"{expected} bytes of float32 vectors of this length. Was it made by another one?"
        )
    stream = np.unpackbits(np.frombuffer(message, np.uint8), bitorder="little")
    return _read(layout, stream, 0)[0]


def _written(layout: Layout, payload: PyTree) -> list[np.ndarray]:
    streams = [np.zeros(0, np.uint8)]
    for name, field in layout.items():
        if isinstance(field, dict):
            streams += _written(field, payload[name])
        else:
            array = np.asarray(payload[name])
            streams.append(_to_bits(field.write(array), _width(field, array.dtype)))
    return streams


def _read(layout: Layout, stream: np.ndarray, begin: int) -> tuple[PyTree, int]:
    payload = {}
    for name, field in layout.items():
        if isinstance(field, dict):
            payload[name], begin = _read(field, stream, begin)
            continue
        width = _width(field, field.dtype)
        end = begin + field.count * width
        codes = _from_bits(stream[begin:end].reshape(field.count, width))
        payload[name], begin = field.read(codes), end
    return payload, begin


def _width(field: Field, dtype: np.dtype) -> int | jax.Array:
    return dtype.itemsize * 8 if field.width is None else field.width


def _to_bits(codes: np.ndarray, width: int) -> np.ndarray:
    """Returns uint8[n * width] bits of n codes, the lowest bit first."""
    codes = np.asarray(codes).astype(np.uint64)
    shifts = np.arange(width, dtype=np.uint64)
    return ((codes[:, None] >> shifts) & np.uint64(1)).astype(np.uint8).reshape(-1)


def _from_bits(bits: np.ndarray) -> np.ndarray:
    """Returns uint64[n] codes of uint8[n, width] bits."""
    return (bits.astype(np.uint64) << np.arange(bits.shape[1], dtype=np.uint64)).sum(1)
