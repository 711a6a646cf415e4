"""Arrays that the devices of a CPU read where they are, without a copy each.

XLA takes a NumPy array in place if it starts at a multiple of 64 bytes, which NumPy's own arrays
rarely do. All CPU devices then share the one copy that the host has anyway.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

_ALIGNMENT = 64
_CHUNK_BYTES = 1 << 20


def empty(shape: Sequence[int], dtype: np.typing.DTypeLike) -> np.ndarray:
    """Returns an array of any content that devices can read in place."""
    dtype = np.dtype(dtype)
    size = math.prod(shape) * dtype.itemsize
    room = np.empty(size + _ALIGNMENT, np.uint8)
    start = -room.ctypes.data % _ALIGNMENT
    return room[start : start + size].view(dtype).reshape(shape)


def in_place(array: np.ndarray) -> np.ndarray:
    """Returns the array if devices can read it where it is, else a copy that they can."""
    array = np.asarray(array)
    if array.flags.c_contiguous and array.ctypes.data % _ALIGNMENT == 0:
        return array
    copy = empty(array.shape, array.dtype)
    copy[...] = array
    return copy


def read_npz(path: str | Path) -> dict[str, np.ndarray]:
    """Reads an `.npz` archive into arrays that devices can read in place.

    Raises:
      ValueError: If the file is no such archive, or holds Python objects.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return {name.removesuffix(".npy"): _read(archive, name) for name in archive.namelist()}
    except zipfile.BadZipFile as error:
        raise ValueError(f"{path} is not an .npz archive ({error}).") from error


def _read(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    with archive.open(name) as member:
        version = np.lib.format.read_magic(member)
        read_header = (
            np.lib.format.read_array_header_1_0
            if version == (1, 0)
            else np.lib.format.read_array_header_2_0
        )
        shape, is_fortran, dtype = read_header(member)
        if dtype.hasobject:
            raise ValueError(f"{name} in {archive.filename} holds Python objects, not numbers.")
        out = empty(shape[::-1] if is_fortran else shape, dtype)
        view = memoryview(out.reshape(-1).view(np.uint8))
        for start in range(0, len(view), _CHUNK_BYTES):
            part = member.read(min(_CHUNK_BYTES, len(view) - start))
            view[start : start + len(part)] = part
    return out.T if is_fortran else out
