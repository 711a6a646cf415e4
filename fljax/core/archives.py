"""Reads compressed files and archives in memory, up to a size: gzip, bzip2, tar, npz.

A small archive may unpack to more than a machine holds, and may contain what is no file. So nothing
is unpacked to disk, members that are not regular files are refused, and reading ends at a limit.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import math
import pathlib
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from fljax.core import memory

# Of an archive whose content is not known beforehand; real data compress to a tenth at most.
_MOST_BYTES, _MOST_GROWTH = 1 << 30, 20
_CHUNK_BYTES = 1 << 20
_OPEN: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open}
_BROKEN = (
    EOFError,
    OSError,
    ValueError,
    RuntimeError,
    NotImplementedError,
    lzma.LZMAError,
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
)


def most_bytes(path: pathlib.Path) -> int:
    """Returns how much an archive may unpack to: 1 GiB, or 20 times its size if that is more."""
    return max(_MOST_BYTES, _MOST_GROWTH * path.stat().st_size)


@contextmanager
def open_bounded(path: pathlib.Path, most: int | None = None) -> Iterator[io.BufferedReader]:
    """Opens a file, unpacked if its name ends in .gz or .bz2; a limit ends in a ValueError.

    Args:
      path: Of the file.
      most: Bytes that may be read; None is `most_bytes`.

    Raises:
      ValueError: If the file is larger, truncated or corrupt; the message names it.
    """
    most = most_bytes(path) if most is None else most
    with whole(path):
        unpack = _OPEN.get(path.suffix)
        with unpack(path) if unpack else open(path, "rb", buffering=0) as file:
            yield io.BufferedReader(_Bounded(file, most, path), _CHUNK_BYTES)


@contextmanager
def whole(path: pathlib.Path, remedy: str = "download it again") -> Iterator[None]:
    """Turns what decoders raise on broken files into a ValueError that names file and remedy."""
    try:
        yield
    except (FileNotFoundError, PermissionError, _Named):
        raise
    except _BROKEN as error:
        raise ValueError(
            f"{path} is truncated or corrupt ({error or type(error).__name__}): {remedy}"
        ) from error


def refused(path: pathlib.Path, why: str) -> ValueError:
    """Returns the error for a file that is whole but not what was expected."""
    return _Named(f"{path} {why}")


def read_bytes(path: pathlib.Path, most: int | None = None) -> bytes:
    """Returns the content of a file, unpacked if its name ends in .gz or .bz2.

    Args:
      path: Of the file.
      most: The most bytes; None is `most_bytes`.

    Raises:
      ValueError: If the file is larger, truncated or corrupt.
    """
    with open_bounded(path, most) as file:
        return file.read()


def read_members(path: pathlib.Path, names: Sequence[str], most: int | None = None) -> list[bytes]:
    """Returns the content of some files in a .tar.gz or .tar.bz2 archive.

    Args:
      path: Of the archive.
      names: Names of its members.
      most: The most bytes of the unpacked archive; None is `most_bytes`.

    Raises:
      ValueError: If one of them is missing or no regular file, or the archive is larger, truncated
        or corrupt.
    """
    found: dict[str, bytes] = {}
    with (
        open_bounded(path, most) as file,
        tarfile.open(fileobj=file, mode="r|", bufsize=_CHUNK_BYTES) as tar,
    ):
        for member in tar:
            name = member.name.removeprefix("./")
            if name in names:
                if not member.isreg() or member.issparse():
                    raise refused(path, f"holds {name} as {_kind(member)}, not as a file")
                found[name] = tar.extractfile(member).read()
                if len(found[name]) != member.size:
                    raise EOFError(f"{name} ends early")
            if len(found) == len(names):
                break
    if missing := [name for name in names if name not in found]:
        raise refused(path, f"holds no {missing[0]}: download it again")
    return [found[name] for name in names]


def read_npz(path: str | pathlib.Path, most: int | None = None) -> dict[str, np.ndarray]:
    """Reads an `.npz` archive into arrays that devices can read in place.

    Args:
      path: Of the archive.
      most: The most bytes of all arrays; None is `most_bytes`.

    Raises:
      ValueError: If the file is no such archive, holds Python objects, is encrypted, or larger.
    """
    path = pathlib.Path(path)
    most = most_bytes(path) if most is None else most
    with whole(path, "write it again, or get it again"):
        if not zipfile.is_zipfile(path):
            raise refused(path, "is truncated or corrupt, or not an .npz archive")
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if sum(member.file_size for member in members) > most:
                raise _too_large(path, most)
            return {
                member.filename.removesuffix(".npy"): _read_array(archive, member, path)
                for member in members
            }


def _read_array(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path) -> np.ndarray:
    if info.flag_bits & 1:
        raise refused(path, f"is encrypted ({info.filename}): store it without a password")
    if info.is_dir() or not info.filename.endswith(".npy"):
        raise refused(path, f"holds {info.filename!r}, which is no array")
    with archive.open(info) as member:
        version = np.lib.format.read_magic(member)
        read_header = (
            np.lib.format.read_array_header_1_0
            if version == (1, 0)
            else np.lib.format.read_array_header_2_0
        )
        shape, is_fortran, dtype = read_header(member)
        if dtype.hasobject:
            raise refused(path, f"holds Python objects ({info.filename}), not numbers")
        size = math.prod(shape) * dtype.itemsize
        if min(shape, default=0) < 0 or size != info.file_size - member.tell():
            raise refused(
                path,
                f"is corrupt: {info.filename} has {info.file_size - member.tell()} bytes for "
                f"{dtype}{list(shape)}",
            )
        out = memory.empty(shape[::-1] if is_fortran else shape, dtype)
        view = memoryview(out.reshape(-1).view(np.uint8))
        for start in range(0, len(view), _CHUNK_BYTES):
            end = min(start + _CHUNK_BYTES, len(view))
            view[start:end] = member.read(end - start)
        member.read(1)  # the end, where the checksum is compared
    return out.T if is_fortran else out


def _kind(member: tarfile.TarInfo) -> str:
    kinds = {"isdir": "a folder", "issym": "a link", "islnk": "a link", "isfifo": "a pipe"}
    return next((kind for test, kind in kinds.items() if getattr(member, test)()), "a special file")


def _too_large(path: pathlib.Path, most: int) -> ValueError:
    return refused(
        path, f"unpacks to more than {most / 1e6:,.0f} MB, the most that is expected of it"
    )


class _Named(ValueError):
    """An error whose message names its file already."""


class _Bounded(io.RawIOBase):
    """A stream that ends in an error where more than so many bytes are read from it."""

    def __init__(self, file, most: int, path: pathlib.Path):
        self.file, self.left, self.most, self.path = file, most, most, path

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        count = self.file.readinto(buffer)
        self.left -= count
        if self.left < 0:
            raise _too_large(self.path, self.most)
        return count
