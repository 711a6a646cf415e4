"""Blocks: what a reader of a format yields, and what makes two readings the same.

A reader turns files of one format into blocks. A block is a dict of NumPy arrays of equal length:

    {"client": ids[R], "x": [R, ...], "y": [R, ...]}

`client` holds integers or texts, of one kind in all blocks; so does `subject`, where rows of one
subject are to stay together. Rows of a client come in any order, in any blocks, and keep their
order among themselves. Any other name is a column as well: "y/age" and "y/event" are two targets of
one example, "groups/sex" is a group of rows, "client_groups/region" one of clients. All blocks have
the same names, types and shapes of a row. Texts become numbers, in the sorted order of their values
over all rows, with their names kept. `"split"` is no array but one text for the whole block:
"train" (where it is left out), "val" or "test".

Blocks come in the same order whenever the same files are read, so that a reading which was killed
goes on behind those that are stored: `Opened.blocks(start)` leaves the first ones out. A format
that can be entered in the middle does so; any other reads and forgets (`skipping`). Some 100,000
rows or 16 MB are a good size.
"""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

Block = Mapping[str, np.ndarray | str]
SPLITS = ("train", "val", "test")

# A few smaller files are known by their content, others by size and time of change.
_HASHED_BYTES, _HASHED_FILES = 1 << 20, 100


class Opened(NamedTuple):
    """Files that a reader has opened.

    Attributes:
      blocks: (start) -> the blocks but the first `start` ones.
      facts: What JSON can hold about the data: whatever the reader wants to know again when it
        finds the cache, such as names of features. The fact "dropped", {split: rows}, counts rows
        that it left out.
      rows: How many rows there will be, for the progress line; None where that is not known.
    """

    blocks: Callable[[int], Iterator[Block]]
    facts: Mapping[str, Any] = {}
    rows: int | None = None


class Reading(NamedTuple):
    """Files, and how one means to read them; nothing is opened until it has to be.

    Attributes:
      format: Such as "csv".
      files: What is read. Where one of them changes, the cache is built again.
      options: What JSON can hold of all that the blocks depend on beside the files.
      open: () -> Opened; called only where there is no cache. It may read everything once, such as
        for means. It raises ValueError, in one line, with the file, the place in it and the remedy.
    """

    format: str
    files: Sequence[Path]
    options: Mapping[str, Any]
    open: Callable[[], Opened]


def skipping(blocks: Callable[[], Iterable[Block]]) -> Callable[[int], Iterator[Block]]:
    """Returns `Opened.blocks` of a format that can only be read from its beginning.

    Args:
      blocks: A generator function of all blocks.

    Example:
      >>> blocks = skipping(lambda: iter([{"client": np.array([7])}, {"client": np.array([8])}]))
      >>> [block["client"].tolist() for block in blocks(1)]
      [[8]]
    """
    return lambda start: itertools.islice(blocks(), start, None)


def identity(files: Sequence[Path]) -> dict[str, list]:
    """Returns {path: [bytes, SHA-256 of a small file or time of change of a large one]}.

    Of a folder, these are the bytes of all files below it, and the SHA-256 of their names, sizes
    and times of change.

    Raises:
      FileNotFoundError: If one is not there.
    """
    is_few = len(files) <= _HASHED_FILES
    return {os.path.abspath(path): _identity(Path(path), is_few) for path in files}


def _identity(path: Path, is_hashed: bool) -> list:
    status = path.stat()
    if path.is_dir():
        return _identity_of_folder(path)
    if is_hashed and status.st_size <= _HASHED_BYTES:
        return [status.st_size, hashlib.sha256(path.read_bytes()).hexdigest()]
    return [status.st_size, status.st_mtime_ns]


def _identity_of_folder(folder: Path) -> list:
    size, digest = 0, hashlib.sha256()
    for place, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            status = os.stat(os.path.join(place, name))
            size += status.st_size
            inside = os.path.relpath(os.path.join(place, name), folder)
            digest.update(f"{inside}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return [size, digest.hexdigest()]
