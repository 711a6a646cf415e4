"""Reads tf.train.Example messages, the records of TensorFlow, from their bytes.

A message is fields, each a key (its number and how its value is stored) and a value. Of an Example
three kinds matter: Example = {1: Features}, Features = {1: entry of a map}, entry = {1: name,
2: Feature}, and Feature = {1: texts | 2: floats | 3: integers}, each of these a list in field 1,
whose numbers may be packed into one value or stored one by one.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_TEXTS, _FLOATS, _INTEGERS = 1, 2, 3


def parse(message: bytes) -> dict[str, np.ndarray | list[bytes]]:
    """Returns {feature: its values} of one Example: float32, int64 or a list of bytes.

    Raises:
      ValueError: If the bytes are no Example.

    Example:
      >>> from fljax.data.readers.tf_example import parse
      >>> parse(bytes([10, 11, 10, 9, 10, 1]) + b'y' + bytes([18, 4, 26, 2, 8, 7]))
      {'y': array([7])}
    """
    found = {}
    for features in _messages(message, 1):
        for entry in _messages(features, 1):
            fields = dict(_fields(entry))
            name, feature = fields.get(1, b""), fields.get(2, b"")
            found[name.decode()] = _values(feature)
    return found


def _values(feature: bytes) -> np.ndarray | list[bytes]:
    kinds = list(_fields(feature))
    if not kinds:
        return []
    kind, values = kinds[-1]
    if kind == _TEXTS:
        return [*_messages(values, 1)]
    if kind == _FLOATS:
        parts = [np.frombuffer(part, "<f4") for _, part in _fields(values)]
        return np.concatenate(parts) if parts else np.zeros(0, np.float32)
    if kind == _INTEGERS:
        parts = [
            np.array([part], np.uint64) if isinstance(part, int) else _varints(part)
            for _, part in _fields(values)
        ]
        whole = np.concatenate(parts) if parts else np.zeros(0, np.uint64)
        return whole.astype(np.int64)
    raise ValueError(f"a feature has values of the unknown kind {kind}")


def _messages(message: bytes, number: int) -> Iterator[bytes]:
    """Yields the values of one field of a message that are bytes or messages themselves."""
    for found, value in _fields(message):
        if found == number:
            if isinstance(value, int):
                raise ValueError("holds a number where a message belongs")
            yield value


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yields (number, value) of each field: an integer, or its bytes."""
    at, size = 0, len(message)
    while at < size:
        key, at = _varint(message, at)
        stored = key & 7
        if stored == _BYTES:
            length, at = _varint(message, at)
        elif stored == _VARINT:
            value, at = _varint(message, at)
            yield key >> 3, value
            continue
        elif stored in (_FIXED32, _FIXED64):
            length = 4 if stored == _FIXED32 else 8
        else:
            raise ValueError(f"stores a field in the unknown way {stored}")
        if at + length > size:
            raise ValueError("ends inside a field")
        yield key >> 3, message[at : at + length]
        at += length


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """Returns an integer stored in 7 bits a byte, the lowest first, and the place behind it."""
    if at < len(message) and message[at] < 0x80:  # most numbers are below 128
        return message[at], at + 1
    value = shift = 0
    for place in range(at, min(at + 10, len(message))):
        byte = message[place]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, place + 1
        shift += 7
    raise ValueError("ends inside a number")


def _varints(packed: bytes) -> np.ndarray:
    """Returns uint64[n], all integers of a packed list at once."""
    stored = np.frombuffer(packed, np.uint8)
    ends = np.flatnonzero(stored < 0x80)
    if stored.size and (not ends.size or ends[-1] != stored.size - 1):
        raise ValueError("ends inside a number")
    if ends.size == stored.size:
        return stored.astype(np.uint64)
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > 10:
        raise ValueError("holds a number of more than 64 bits")
    place = np.arange(stored.size) - np.repeat(starts, lengths)
    parts = (stored & 0x7F).astype(np.uint64) << (7 * place).astype(np.uint64)
    return np.bitwise_or.reduceat(parts, starts)
