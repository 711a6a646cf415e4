"""Allocates arrays that the devices of a CPU read where they are, without a copy each.

XLA takes a NumPy array in place if it starts at a multiple of 64 bytes, which NumPy's own arrays
rarely do. All CPU devices then share the one copy that the host has anyway.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

_ALIGNMENT = 64


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
