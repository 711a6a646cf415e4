"""JSON on disk: one conversion to plain values, atomic files, and a forgiving JSONL reader."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np


def plain(value: Any) -> Any:
    """Converts a value to what JSON can hold.

    Mappings, sequences, named tuples and dataclasses are converted member by member; NumPy and JAX
    scalars become Python numbers, arrays become lists. NaN and the infinities have no JSON
    spelling and become None (`null`). Anything else, such as a path or a dtype, becomes its `str`.
    """
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    elif hasattr(value, "_asdict"):
        value = value._asdict()
    elif hasattr(value, "to_dict"):
        value = value.to_dict()
    if isinstance(value, Mapping):
        return {str(key): plain(member) for key, member in value.items()}
    if isinstance(value, list | tuple):
        return [plain(member) for member in value]
    if isinstance(value, set | frozenset):
        return sorted((plain(member) for member in value), key=str)
    if hasattr(value, "tolist") and hasattr(value, "dtype"):
        return plain(np.asarray(value).tolist())
    return str(value)


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Opens a file that takes the place of `path` only when it was written whole.

    The bytes go to a temporary file beside `path`, reach the disk, and are renamed. A kill at any
    moment leaves either the old file or the new one.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Writes `plain(value)` atomically, keys sorted, two spaces of indentation."""
    text = json.dumps(plain(value), indent=2, sort_keys=True, allow_nan=False)
    with atomic_file(path) as file:
        file.write(text.encode() + b"\n")


def read_json(path: Path) -> Any:
    """Returns the value in a JSON file.

    Raises:
      ValueError: the file is no JSON; the message names it.
    """
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from None


def read_lines(path: Path) -> Iterator[tuple[bytes, dict]]:
    """Yields (line, object) for every complete line of a JSONL file, in order.

    A line is complete when it ends in a newline: what a writer was killed over is passed by.

    Raises:
      ValueError: a complete line is not a JSON object; the message gives file and line number.
    """
    complete = path.read_bytes().split(b"\n")[:-1]
    for number, line in enumerate(complete, start=1):
        try:
            record = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{path}, line {number} is not valid JSON: {error}") from None
        if not isinstance(record, dict):
            raise ValueError(f"{path}, line {number} is not a JSON object: {line[:80]!r}")
        yield line, record
