"""Orders the rows of a spilled column by client, in bounded memory: a counting sort on disk.

Clients are put into buckets of consecutive clients, whose rows fit into memory. The column is read
once and each row appended to the file of its bucket; then each bucket is ordered in memory and
written behind the one before. Rows of a client keep their order. What fits into one bucket is
ordered at once, and what came in order is only copied.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

# The memory in which a bucket is ordered: its values, the ranks of their clients and their order.
BUCKET_BYTES = 256 << 20
_CHUNK_BYTES = 8 << 20


class Column(NamedTuple):
    """A column as it was spilled.

    Attributes:
      path: Of its file.
      dtype: Of its values there.
      shape: Of a row.
      renumbered: int32[codes] the number that is written for each code, or None for values.
    """

    path: Path
    dtype: np.dtype
    shape: tuple[int, ...]
    renumbered: np.ndarray | None = None


class Written(NamedTuple):
    """Facts about the written part of a column.

    Attributes:
      size: Bytes.
      crc32: Their checksum.
      low, high: The least and the largest value; None of no rows.
    """

    size: int = 0
    crc32: int = 0
    low: float | None = None
    high: float | None = None


def counts(owners: Path, ranks: np.ndarray) -> np.ndarray:
    """Returns int64[N], the rows of each client in the order of its rank.

    Args:
      owners: File of int32[rows], the number of each row's client.
      ranks: int32[N], the place of each number in the order that is wanted.
    """
    found = np.zeros(len(ranks), np.int64)
    for chunk in _chunks(owners, np.dtype(np.int32), ()):
        found += np.bincount(ranks[chunk], minlength=len(ranks))
    return found


def ordered(
    column: Column, owners: Path, ranks: np.ndarray, sizes: np.ndarray, target: Path
) -> Written:
    """Writes a column in the order of clients.

    Args:
      column: Its file, [rows, ...] in the order of arrival.
      owners, ranks: As in `counts`.
      sizes: int64[N], what `counts` returned.
      target: File to be written; files beside it, named like it, are there meanwhile.
    """
    buckets = _buckets(sizes, max(1, BUCKET_BYTES // (_row_bytes(column) + 16)))
    with open(target, "wb") as file:
        if _is_in_order(owners, ranks):
            return _copied(file, column.path, column, Written())
        if buckets[-1] == 0:
            return _sorted(file, column.path, owners, column, ranks, Written())
        parts = [target.with_name(f"{target.name}.{n}") for n in range(buckets[-1] + 1)]
        own = [part.with_name(f"{part.name}.owners") for part in parts]
        _distribute(column, owners, ranks, buckets, parts, own)
        written = Written()
        alone = np.bincount(buckets) == 1
        for number, (part, owners_of_part) in enumerate(zip(parts, own, strict=True)):
            if alone[number]:
                written = _copied(file, part, column, written)
            else:
                written = _sorted(file, part, owners_of_part, column, ranks, written)
            part.unlink()
            owners_of_part.unlink()
    return written


def _buckets(sizes: np.ndarray, rows: int) -> np.ndarray:
    """Returns int64[N], each client's bucket: `rows` rows each or more, by the last client's.

    A client that has more than a bucket holds is alone in one, which needs no order.
    """
    starts = np.cumsum(sizes) - sizes
    is_large = sizes > rows
    begins = np.diff(starts // rows) > 0
    begins |= is_large[1:] | is_large[:-1]
    return np.concatenate([[0], np.cumsum(begins)])


def _is_in_order(owners: Path, ranks: np.ndarray) -> bool:
    last = -1
    for chunk in _chunks(owners, np.dtype(np.int32), ()):
        own = ranks[chunk]
        if own[0] < last or np.any(own[1:] < own[:-1]):
            return False
        last = own[-1]
    return True


def _distribute(column: Column, owners: Path, ranks, buckets, parts, own) -> None:
    """Appends each row, and the number of its client, to the file of its bucket."""
    rows = _rows_per_chunk(column)
    for path in (*parts, *own):
        path.write_bytes(b"")
    both = zip(
        _chunks(column.path, column.dtype, column.shape, rows),
        _chunks(owners, np.dtype(np.int32), (), rows),
        strict=True,
    )
    for values, numbers in both:
        bucket = buckets[ranks[numbers]]
        order = np.argsort(bucket, kind="stable")
        present, first = np.unique(bucket[order], return_index=True)
        for number, chosen in zip(present, np.split(order, first[1:]), strict=True):
            # there may be more buckets than files that may be open
            for path, rows_of_part in ((parts[number], values), (own[number], numbers)):
                with open(path, "ab") as file:
                    rows_of_part[chosen].tofile(file)


def _sorted(file: BinaryIO, path: Path, owners: Path, column: Column, ranks, written) -> Written:
    """Writes the rows of a file that fits into memory, ordered."""
    order = np.argsort(ranks[np.fromfile(owners, np.int32)], kind="stable")
    values = np.fromfile(path, column.dtype).reshape(-1, *column.shape)
    rows = _rows_per_chunk(column)
    for start in range(0, len(order), rows):
        written = _put(file, values[order[start : start + rows]], column, written)
    return written


def _copied(file: BinaryIO, path: Path, column: Column, written: Written) -> Written:
    for values in _chunks(path, column.dtype, column.shape, _rows_per_chunk(column)):
        written = _put(file, values, column, written)
    return written


def _put(file: BinaryIO, values: np.ndarray, column: Column, written: Written) -> Written:
    """Writes rows; returns what has been written with them."""
    if column.renumbered is not None:
        values = column.renumbered[values]
    data = memoryview(np.ascontiguousarray(values)).cast("B")
    file.write(data)
    low, high = values.min().item(), values.max().item()
    return Written(
        written.size + len(data),
        zlib.crc32(data, written.crc32),
        low if written.low is None else min(low, written.low),
        high if written.high is None else max(high, written.high),
    )


def _rows_per_chunk(column: Column) -> int:
    return max(1, _CHUNK_BYTES // max(_row_bytes(column), 1))


def _row_bytes(column: Column) -> int:
    return column.dtype.itemsize * math.prod(column.shape)


def _chunks(path: Path, dtype: np.dtype, shape, rows: int | None = None) -> Iterator[np.ndarray]:
    """Yields the rows of a file, some at a time."""
    count = math.prod(shape)
    rows = rows or max(1, _CHUNK_BYTES // dtype.itemsize)
    with open(path, "rb") as file:
        while (values := np.fromfile(file, dtype, rows * count)).size:
            yield values.reshape(-1, *shape)
