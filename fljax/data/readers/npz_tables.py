"""Reads `.npz` archives part by part; each of their arrays is a column."""

from __future__ import annotations

import itertools
import math
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from fljax.core.archives import refused
from fljax.data.readers.tables import (
    Batch,
    Files,
    Table,
    pyarrow,
    reading,
    rows_of_batch,
    same_columns,
)

_KINDS = {"b": "truth", "i": "integer", "u": "integer", "f": "number", "U": "text"}


def npz_table(files: Files) -> Table:
    """Opens `.npz` archives.

    Raises:
      ValueError: If a file is no such archive, or has other columns than the first.
    """
    pa = pyarrow()

    def batches(kept: Sequence[str]) -> Iterator[Batch]:
        for split, path in files:
            with reading(path, "npz"), zipfile.ZipFile(path) as archive:
                found = {name: _opened(archive, f"{name}.npy", path) for name in kept}
                rows = next(iter(found.values()))[1][0]
                row_bytes = sum(t.itemsize * math.prod(s[1:]) for _, s, t in found.values())
                size = rows_of_batch(row_bytes)
                for place in range(0, rows, size):
                    parts = {
                        name: _part(file, (min(size, rows - place), *shape[1:]), dtype)
                        for name, (file, shape, dtype) in found.items()
                    }
                    columns = {
                        name: pa.array(values) if values.ndim == 1 else values
                        for name, values in parts.items()
                    }
                    yield Batch(split, path, place + 1, columns)

    known = [(path, *_described(path)) for _, path in files]
    return Table(
        files,
        same_columns([(path, kinds) for path, kinds, _ in known]),
        lambda kept, start: itertools.islice(batches(kept), start, None),
        sum(rows for *_, rows in known),
    )


def _described(path: Path) -> tuple[dict[str, str], int]:
    """Returns ({column: kind}, rows) of an archive."""
    with reading(path, "npz"), zipfile.ZipFile(path) as archive:
        found = {
            name.removesuffix(".npy"): _opened(archive, name, path)[1:]
            for name in archive.namelist()
        }
    lengths = {name: shape[0] for name, (shape, _) in found.items()}
    if len(set(lengths.values())) != 1:
        raise refused(path, f"holds arrays of unlike length, {lengths}: one value a row")
    kinds = {
        name: "vector" if len(shape) > 1 else _KINDS.get(dtype.kind, str(dtype))
        for name, (shape, dtype) in found.items()
    }
    return kinds, next(iter(lengths.values()))


def _opened(archive: zipfile.ZipFile, member: str, path: Path):
    """Returns (file at the first value, shape, type) of an array in an archive."""
    file = archive.open(member)
    version = np.lib.format.read_magic(file)
    headers = {(1, 0): np.lib.format.read_array_header_1_0}
    shape, is_fortran, dtype = headers.get(version, np.lib.format.read_array_header_2_0)(file)
    if dtype.hasobject:
        raise refused(path, f"holds Python objects ({member}): store numbers or texts")
    if not shape or (is_fortran and len(shape) > 1):
        raise refused(
            path,
            f"holds {member} of shape {list(shape)}, which is not one value after another: store "
            "np.ascontiguousarray of an array with a row for each example",
        )
    return file, shape, dtype


def _part(file: BinaryIO, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Returns the next rows of an array, in native byte order."""
    size = math.prod(shape) * dtype.itemsize
    data = file.read(size)
    if len(data) != size:
        raise EOFError("an array ends early")
    return np.frombuffer(data, dtype).reshape(shape).astype(dtype.newbyteorder("="), copy=False)
