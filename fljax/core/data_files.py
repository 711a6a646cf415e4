"""Finds and reads data files: the data directory, IDX, JSON; says what to do of missing ones."""

from __future__ import annotations

import json
import math
import os
import pathlib
from typing import Any

import numpy as np

from fljax.core.archives import most_bytes, open_bounded, read_bytes, refused
from fljax.core.values import checked_path, wrong

_IDX_TYPES = {
    0x08: np.dtype("u1"),
    0x09: np.dtype("i1"),
    0x0B: np.dtype(">i2"),
    0x0C: np.dtype(">i4"),
    0x0D: np.dtype(">f4"),
    0x0E: np.dtype(">f8"),
}


def resolve_data_dir(data_dir: str | os.PathLike | None = None) -> pathlib.Path:
    """Returns the data directory: the argument, else $FLJAX_DATA_DIR, else ~/.cache/fljax.

    Example:
      >>> data.resolve_data_dir('/data').name
      'data'
    """
    if not isinstance(data_dir, str | os.PathLike | None):
        raise wrong("data_dir", data_dir, "a path, or None")
    chosen = data_dir or os.environ.get("FLJAX_DATA_DIR") or "~/.cache/fljax"
    return pathlib.Path(chosen).expanduser()


def find_file(directory: pathlib.Path, name: str) -> pathlib.Path | None:
    """Returns the path of `name`, or of `name.gz`, in a directory; None if neither is there."""
    candidates = (directory / name, directory / f"{name}.gz")
    return next((path for path in candidates if path.is_file()), None)


def located(path: str | os.PathLike, data_dir: str | os.PathLike | None = None) -> pathlib.Path:
    """Returns where a file or folder is: as given, or in the data directory.

    Args:
      path: Of the file or folder.
      data_dir: See `resolve_data_dir`.

    Raises:
      FileNotFoundError: If it is in neither place.
    """
    given = checked_path("path", path).expanduser()
    root = resolve_data_dir(data_dir)
    for place in (given, root / given):
        if place.exists():
            return place
    raise FileNotFoundError(missing_files(given.name, [str(given)], root))


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


def read_idx(path: pathlib.Path) -> np.ndarray:
    """Reads an IDX file, the format of MNIST: a header with type and shape, then big-endian values.

    Args:
      path: Of the file, gzipped if its name ends in .gz.

    Returns:
      Array of the stored shape, in native byte order.

    Raises:
      ValueError: If the file is truncated, corrupt, or not IDX.
    """
    most = most_bytes(path)
    with open_bounded(path) as file:
        start = file.read(4)
        if len(start) < 4 or start[:2] != b"\0\0" or start[2] not in _IDX_TYPES:
            raise refused(
                path,
                f"does not start as an IDX file ({start.hex() or 'it is empty'}): download it "
                "again",
            )
        dtype, ndim = _IDX_TYPES[start[2]], start[3]
        sizes = file.read(4 * ndim)
        if len(sizes) < 4 * ndim:
            raise EOFError("it ends inside its header")
        shape = tuple(np.frombuffer(sizes, ">u4").tolist())
        expected = math.prod(shape) * dtype.itemsize
        # one byte more than expected, to see whether the file ends there
        content = file.read(expected + 1) if expected <= most else b""
    if len(content) != expected:
        found = f"has {len(content):,}" if len(content) < expected else "is longer"
        raise refused(
            path,
            f"says in its header that it holds {dtype.name}{list(shape)}, {expected:,} bytes, but "
            f"{found if content else 'cannot'}: the download is incomplete or corrupt, download it "
            "again",
        )
    return np.frombuffer(content, dtype).reshape(shape).astype(dtype.newbyteorder("="))


def read_json(path: pathlib.Path, most: int | None = None) -> Any:
    """Returns the value in a JSON file, unpacked if its name ends in .gz.

    Args:
      path: Of the file, in UTF-8.
      most: The most bytes; None is `most_bytes`.

    Raises:
      ValueError: If the file is truncated, corrupt or no JSON, or an object names a key twice.
    """
    content = read_bytes(path, most)
    try:
        return json.loads(content, object_pairs_hook=_without_repetition)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON in UTF-8 ({error}): it may be incomplete") from error


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for n, (key, _) in enumerate(pairs) if key in dict(pairs[:n]))
        raise ValueError(f"an object has the key {twice!r} twice")
    return found
