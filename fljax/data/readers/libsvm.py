"""Reads the sparse text format of LIBSVM, block by block: `label place:value place:value ...`."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Iterator

import numpy as np

from fljax.core.archives import open_bounded, refused

# Bytes of text that are read at once.
_CHUNK = 4 << 20
_ROW = re.compile(rb"\s*[^\s:]+(?:\s+[^\s:]+:[^\s:]+)*\s*")


def libsvm_blocks(
    path: pathlib.Path, num_features: int, dtype: type = np.float32
) -> Iterator[dict[str, np.ndarray]]:
    """Yields the rows of a file as dense blocks, in the order of the file.

    A block is of some 4 MB of text. Places count from 1 and rise within a row, as LIBSVM has them;
    what a row leaves out is 0. Text behind `#` is a comment.

    Args:
      path: Of the file, packed if its name ends in .gz or .bz2.
      num_features: D.
      dtype: Of x: float32, or uint8 where all are whole numbers from 0 to 255.

    Yields:
      {"x": dtype[rows, D], "y": float64[rows]}.

    Raises:
      ValueError: If a row is none, or a value cannot be held; names file and line.
    """
    first = 1
    for lines in _lines(path):
        try:
            yield _block(lines, num_features, np.dtype(dtype))
        except ValueError:
            for number, line in enumerate(lines):
                try:
                    _block([line], num_features, np.dtype(dtype))
                except ValueError as error:
                    raise refused(
                        path, f"is no LIBSVM file: line {first + number} {error}"
                    ) from None
            raise
        first += len(lines)


def read_libsvm(
    path: pathlib.Path, num_features: int, dtype: type = np.float32
) -> tuple[np.ndarray, np.ndarray]:
    """Returns all rows of a file, (x dtype[rows, D], y float64[rows]); see `libsvm_blocks`.

    Raises:
      ValueError: As `libsvm_blocks`, and if there is no row.
    """
    blocks = list(libsvm_blocks(path, num_features, dtype))
    if not sum(len(block["y"]) for block in blocks):
        raise refused(path, "holds no rows")
    x, y = (np.concatenate([block[name] for block in blocks]) for name in ("x", "y"))
    return x, y


def largest_place(path: pathlib.Path) -> int:
    """Returns the largest place that a file names, hence how many features it has at least.

    Raises:
      ValueError: If a place is no whole number.
    """
    most, first = 0, 1
    for lines in _lines(path):
        for number, line in enumerate(lines):
            place = line.rpartition(b":")[0].rpartition(b" ")[2]
            if place and not place.isdigit():
                raise refused(path, f"is no LIBSVM file: line {first + number} has no place there")
            most = max(most, int(place or 0))
        first += len(lines)
    return most


def _lines(path: pathlib.Path) -> Iterator[list[bytes]]:
    """Yields a chunk's lines, without comments; empty ones stay, so that they can be counted."""
    with open_bounded(path) as file:
        rest = b""
        while chunk := file.read(_CHUNK):
            *lines, rest = (rest + chunk).split(b"\n")
            yield [line.partition(b"#")[0] for line in lines]
        if rest:
            yield [rest.partition(b"#")[0]]


def _block(lines: list[bytes], num_features: int, dtype: np.dtype) -> dict[str, np.ndarray]:
    lines = [line for line in lines if line.strip()]
    if not all(map(_ROW.fullmatch, lines)):
        raise ValueError("is not a label and pairs of place:value")
    counts = np.array([line.count(b":") for line in lines], np.int64)
    try:
        values = np.array(b" ".join(lines).replace(b":", b" ").split()).astype(np.float64)
    except ValueError:
        raise ValueError("holds something else than numbers") from None
    labels = np.cumsum(1 + 2 * counts) - 1 - 2 * counts
    is_pair = np.ones(len(values), bool)
    is_pair[labels] = False
    places, entries = values[is_pair].reshape(-1, 2).T
    if not np.isfinite(values).all():
        raise ValueError("holds a value that is not finite")
    rows = np.repeat(np.arange(len(lines)), counts)
    _check(places, entries, rows, num_features, dtype)
    x = np.zeros((len(lines), num_features), dtype)
    x[rows, places.astype(np.int64) - 1] = entries
    return {"x": x, "y": values[labels]}


def _check(places, entries, rows, num_features: int, dtype: np.dtype) -> None:
    """Raises ValueError for places that are none, and values that the type does not hold."""
    wrong = (places < 1) | (places > num_features) | (places != np.rint(places))
    if wrong.any():
        raise ValueError(f"has the place {places[wrong][0]:g}, and places are 1 to {num_features}")
    falls = (np.diff(places) <= 0) & (np.diff(rows) == 0)
    if falls.any():
        raise ValueError("has places that do not rise")
    if dtype.kind in "iu":
        bounds = np.iinfo(dtype)
        outside = (entries != np.rint(entries)) | (entries < bounds.min) | (entries > bounds.max)
        if outside.any():
            raise ValueError(f"has the value {entries[outside][0]:g}, which {dtype} cannot hold")
