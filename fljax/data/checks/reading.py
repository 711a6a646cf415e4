"""Reads rows in blocks, and gives each a number that equal rows share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from fljax.core import random
from fljax.data.dataset import Split
from fljax.data.examples import named_arrays, row_bytes

BLOCK_BYTES = 1 << 25


def blocks(split: Split, rows: np.ndarray | None = None) -> Iterator[tuple[slice, dict[str, Any]]]:
    """Reads rows of a split in blocks of some 32 MB.

    Args:
      split: Whose examples are read.
      rows: int[R] their numbers; default all of the split, in the order of `split.rows()`.

    Yields:
      (which of the rows, {name: array of them}), pytrees as flat names: "x", "y/height".
    """
    rows = split.rows() if rows is None else rows
    step = max(1, BLOCK_BYTES // max(1, row_bytes(split.examples.spec)))
    for start in range(0, len(rows), step):
        taken = split.examples.take(rows[start : start + step])
        yield slice(start, start + len(rows[start : start + step])), named_arrays(taken)


def flat_features(examples: Mapping[str, Any]) -> np.ndarray:
    """Returns all numbers of x of each example, side by side: float[rows, numbers]."""
    parts = [np.asarray(part) for part in named_arrays(examples["x"]).values()]
    dtype = np.result_type(np.float32, *parts)
    return np.concatenate([part.reshape(len(part), -1).astype(dtype) for part in parts], 1)


def hashes(split: Split) -> dict[str, np.ndarray]:
    """Returns numbers for x and for y of each row of a split, the same for the same bytes.

    Two unlike ones share a number with probability 2^-64: among 20 million rows, about one time in
    100,000 any two do. The sums of both numbers are such numbers of whole rows.

    Args:
      split: In the order of whose `rows()` the numbers are.

    Returns:
      {"x": uint64[rows], "y": uint64[rows]}.
    """
    found = {part: np.zeros(split.num_rows, np.uint64) for part in ("x", "y")}
    for where, arrays in blocks(split):
        for name, values in arrays.items():
            if (part := name.partition("/")[0]) in found:
                found[part][where] += _of_bytes(values, name)
    return found


def _of_bytes(values: np.ndarray, name: str) -> np.ndarray:
    """Returns the sum mod 2^64 of what each 32-bit word of a row is mapped to at its place."""
    flat = np.ascontiguousarray(values).reshape(len(values), -1).view(np.uint8)
    words = np.pad(flat, ((0, 0), (0, -flat.shape[1] % 4))).view(np.uint32)
    at_places = random.bits(0, f"hashes/{name}", np.arange(words.shape[1]))
    return random.fold_in(at_places, words).sum(1, dtype=np.uint64)
