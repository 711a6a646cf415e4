"""Finding and reading data files: the data directory, IDX, what to say when a file is missing."""

from __future__ import annotations

import gzip
import os
import pathlib
import zlib

import numpy as np

_IDX_TYPES = {
    0x08: np.dtype("u1"),
    0x09: np.dtype("i1"),
    0x0B: np.dtype(">i2"),
    0x0C: np.dtype(">i4"),
    0x0D: np.dtype(">f4"),
    0x0E: np.dtype(">f8"),
}


def resolve_data_dir(data_dir: str | os.PathLike | None = None) -> pathlib.Path:
    """Returns the data directory: the argument, else $FLJAX_DATA_DIR, else ~/.cache/fljax."""
    chosen = data_dir or os.environ.get("FLJAX_DATA_DIR") or "~/.cache/fljax"
    return pathlib.Path(chosen).expanduser()


def find_file(directory: pathlib.Path, name: str) -> pathlib.Path | None:
    """Returns the path of `name`, or of `name.gz`, in a directory; None if neither is there."""
    candidates = (directory / name, directory / f"{name}.gz")
    return next((path for path in candidates if path.is_file()), None)


def missing_files(dataset: str, wanted: list[str], data_dir: pathlib.Path, also: str = "") -> str:
    """Returns the message for data that are not there: which files, where, and how to say so.

    Args:
      dataset: Its name.
      wanted: Paths of the files, relative to the data directory.
      data_dir: The directory searched.
      also: What else was tried, and how it failed.
    """
    files = "\n".join(f"  {data_dir / path}" for path in wanted)
    return (
        f"the files of {dataset!r} were not found. Put them here:\n{files}\n"
        "or name the directory that has them with data_dir=... or the environment variable "
        f"FLJAX_DATA_DIR.{also and chr(10) + also}"
    )


def read_bytes(path: pathlib.Path) -> bytes:
    """Returns the content of a file, unpacked if its name ends in .gz.

    Raises:
      ValueError: If the gzip stream is truncated or corrupt.
    """
    if path.suffix != ".gz":
        return path.read_bytes()
    try:
        with gzip.open(path) as file:
            return file.read()
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(
            f"{path} is truncated or not a gzip file ({error}): download it again"
        ) from error


def read_idx(path: pathlib.Path) -> np.ndarray:
    """Reads an IDX file, the format of MNIST: a header with type and shape, then big-endian values.

    Args:
      path: Of the file, gzipped if its name ends in .gz.

    Returns:
      Array of the stored shape, in native byte order.

    Raises:
      ValueError: If the file is truncated, corrupt, or not IDX.
    """
    content = read_bytes(path)
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in _IDX_TYPES:
        raise ValueError(
            f"{path} does not start as an IDX file ({content[:4].hex() or 'it is empty'}): "
            "download it again"
        )
    dtype, ndim = _IDX_TYPES[content[2]], content[3]
    start = 4 + 4 * ndim
    shape = tuple(np.frombuffer(content[4:start], ">i4").tolist()) if len(content) >= start else ()
    expected = start + dtype.itemsize * int(np.prod(shape, dtype=np.int64))
    if len(content) != expected:
        raise ValueError(
            f"{path} has {len(content)} bytes, but its header asks for {expected}: the download is "
            "incomplete or corrupt, download it again"
        )
    values = np.frombuffer(content, dtype, offset=start).reshape(shape)
    return values.astype(dtype.newbyteorder("="))
