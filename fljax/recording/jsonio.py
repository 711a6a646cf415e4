"""Writes and reads JSON: a conversion to plain values, checked files, a forgiving JSONL reader."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fljax.core.values import shown
from fljax.recording import checksums
from fljax.recording.checksums import Extent


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


def write_json(path: Path, value: Any) -> None:
    """Writes `plain(value)` atomically and notes its checksum; keys sorted, two spaces a level."""
    text = json.dumps(plain(value), indent=2, sort_keys=True, allow_nan=False)
    checksums.replace(path, text.encode() + b"\n")


def read_json(path: Path) -> Any:
    """Returns the value in a JSON file.

    Raises:
      ValueError: the file is no JSON, or changed since it was written; the message names it.
    """
    data = checksums.read(path)
    try:
        return json.loads(data)
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from None


def read_object(path: Path) -> dict[str, Any]:
    """Returns the object in a JSON file.

    Raises:
      ValueError: As for `read_json`, or the file holds something else.
    """
    found = read_json(path)
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds {shown(found)}, where a JSON object belongs.")
    return found


def read_lines(path: Path, extent: Extent | None = None) -> Iterator[tuple[bytes, dict]]:
    """Yields (line, object) for every complete line of a JSONL file, in order.

    A line is complete when it ends in a newline: what a writer was killed over is passed by.

    Args:
      path: Of the file.
      extent: What of it is read, and was there when a checkpoint was taken; None for all.

    Raises:
      ValueError: the file changed since it was written, or a complete line is not a JSON object;
        the message gives the file, and the number of the line.
    """
    data = checksums.read(path, extent)
    complete = data.split(b"\n")[:-1]
    for number, line in enumerate(complete, start=1):
        try:
            record = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{path}, line {number} is not valid JSON: {error}") from None
        if not isinstance(record, dict):
            raise ValueError(f"{path}, line {number} is not a JSON object: {line[:80]!r}")
        yield line, record
