"""Writes `.npz` files that are whole or not there, with their checksums beside them."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from fljax.core.archives import read_npz
from fljax.recording import checksums


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes arrays by name, atomically, and notes the file's checksum."""
    file = io.BytesIO()
    np.savez(file, **arrays)
    checksums.replace(path, file.getvalue())


def load_arrays(path: Path) -> dict[str, np.ndarray] | None:
    """Reads arrays by name; None where there is no such file.

    Raises:
      ValueError: The file is not what was written; the message names it.
    """
    if not path.exists():
        return None
    checksums.read(path)
    return read_npz(path)
