"""Stores blocks as they come, in bounded memory, so that a killed reading can go on behind them.

Each column of a split is one file that grows. `journal.json` says how long each was when the last
block was stored whole; what lies behind that is cut off by whoever goes on. Ids and texts are
stored as numbers in the order of their first appearance, and each of them once, in a file of JSON
lines.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from fljax.core.files import atomic_file, naming
from fljax.data.readers.blocks import SPLITS, Block
from fljax.data.values import first_nonfinite, narrowed, place_of

JOURNAL = "journal.json"
# Between two entries of the journal.
_SECONDS = 2.0


@dataclasses.dataclass
class Spill:
    """Blocks that are stored.

    Attributes:
      folder: Where.
      blocks: How many.
      columns: {column: [type, shape of a row]}; of coded ones, the type of their values.
      rows: {split: rows}.
      codes: {column of ids or texts: {value: number}}.
      sizes: {file: bytes}.
      is_whole: Whether the last block is among them.
      files: Those that are open.
      noted: When the journal was written, or would have been.
    """

    folder: Path
    blocks: int = 0
    columns: dict[str, list] = dataclasses.field(default_factory=dict)
    rows: dict[str, int] = dataclasses.field(default_factory=dict)
    codes: dict[str, dict] = dataclasses.field(default_factory=dict)
    sizes: dict[str, int] = dataclasses.field(default_factory=dict)
    is_whole: bool = False
    files: dict[str, BinaryIO] = dataclasses.field(default_factory=dict)
    noted: float = dataclasses.field(default_factory=time.monotonic)


# Columns whose integers are names, not numbers.
_IDS = ("client", "subject")
_NOTED = ("blocks", "columns", "rows", "sizes", "is_whole")


def file_of(split: str, column: str) -> str:
    """Returns the name of the file of a column, in a spill and in a cache."""
    return f"{split}.{column.replace('/', '.')}.bin"


def opened(folder: Path, reading: Mapping[str, Any]) -> Spill:
    """Returns the spill in a folder as far as it is whole, or an empty one.

    Args:
      folder: Created where it is absent.
      reading: What JSON can hold of what is read; a spill of anything else is thrown away.
    """
    folder.mkdir(parents=True, exist_ok=True)
    spill = Spill(folder)
    try:
        journal = json.loads((folder / JOURNAL).read_bytes())
        if journal.pop("reading") == reading:
            spill = dataclasses.replace(spill, **{name: journal[name] for name in _NOTED})
            _cut(spill)
            spill.codes = {name: _values(folder, name) for name in journal["coded"]}
    except (OSError, ValueError, KeyError, TypeError):  # nothing is there, or it is damaged
        spill = Spill(folder)
    for path in folder.iterdir():
        if path.name not in (JOURNAL, *spill.sizes):
            path.unlink()
    return spill


def append(spill: Spill, block: Block, reading: Mapping[str, Any]) -> None:
    """Stores one block behind the others.

    Args:
      spill: Changed in place.
      block: See `fljax.data.readers.blocks`.
      reading: As in `opened`.

    Raises:
      ValueError: For what is no block, or unlike those before it.
    """
    split = str(block.get("split", "train"))
    if split not in SPLITS:
        raise ValueError(f"a block of the split {split!r}, which is none of {', '.join(SPLITS)}")
    columns = {name: np.asarray(values) for name, values in block.items() if name != "split"}
    lengths = {name: len(values) for name, values in columns.items()}
    if "client" not in columns or len(set(lengths.values())) != 1:
        raise ValueError(f"a block needs a client and values for each row, not {lengths}")
    if spill.columns and columns.keys() != spill.columns.keys():
        raise ValueError(
            f"a block has the columns {', '.join(columns)}, those before it "
            f"{', '.join(spill.columns)}"
        )
    before = spill.rows.get(split, 0)
    for name, values in columns.items():
        try:
            stored = _stored(spill, name, values)
        except ValueError as error:
            raise ValueError(f"{error} (behind {before:,} {split} rows)") from None
        if len(stored):
            _write(spill, file_of(split, name), memoryview(stored).cast("B"))
    spill.rows[split] = before + lengths["client"]
    spill.blocks += 1
    note_at_times(spill, reading)


def note_at_times(spill: Spill, reading: Mapping[str, Any]) -> None:
    """Does what `note` does where that was a while ago."""
    if time.monotonic() - spill.noted > _SECONDS:
        note(spill, reading)


def note(spill: Spill, reading: Mapping[str, Any]) -> None:
    """Brings all that is stored to the disk, and notes how much it is."""
    for name, file in spill.files.items():
        with naming(spill.folder / name):
            file.flush()
            os.fsync(file.fileno())
    journal = {name: getattr(spill, name) for name in _NOTED}
    with atomic_file(spill.folder / JOURNAL) as file:
        file.write(json.dumps({"reading": reading, "coded": list(spill.codes), **journal}).encode())
    spill.noted = time.monotonic()


def close(spill: Spill) -> None:
    """Closes the files."""
    while spill.files:
        name, file = spill.files.popitem()
        with naming(spill.folder / name):
            file.close()


def _stored(spill: Spill, name: str, values: np.ndarray) -> np.ndarray:
    """Returns what is stored of a column of a block: numbers as JAX holds them, or codes."""
    is_text = values.dtype.kind in "UTO"
    if name in _IDS and not is_text and values.dtype.kind not in "iu":
        raise ValueError(f"{name} must hold integers or texts, not {values.dtype}")
    is_coded = is_text or name in _IDS
    if not is_coded:
        values = np.ascontiguousarray(narrowed(values, name))
        if (place := first_nonfinite(values)) is not None:
            raise ValueError(f"{place_of(name, place)} is {values[place]}: drop or fill it")
    kind = "text" if is_text else "integer" if is_coded else values.dtype.name
    described = [kind, list(values.shape[1:])]
    if spill.columns.setdefault(name, described) != described:
        raise ValueError(f"{name} is {described} here, and {spill.columns[name]} before")
    return _coded(spill, name, values) if is_coded else values


def _coded(spill: Spill, name: str, values: np.ndarray) -> np.ndarray:
    """Returns the number of each id or text, int32[R]; notes those that are new."""
    if values.ndim != 1:
        raise ValueError(f"{name} must be one id or text a row, not {list(values.shape[1:])}")
    codes = spill.codes.setdefault(name, {})
    known, listed = len(codes), values.tolist()
    if values.dtype.kind == "O":
        odd = next((row for row, value in enumerate(listed) if not isinstance(value, str)), None)
        if odd is not None:
            raise ValueError(f"{place_of(name, [odd])} is {listed[odd]!r}, and others are texts")
    numbers = np.array([codes.setdefault(value, len(codes)) for value in listed], np.int32)
    new = [*itertools.islice(reversed(codes), len(codes) - known)][::-1]
    if new:
        _write(spill, _list_of(name), "".join(f"{json.dumps(value)}\n" for value in new).encode())
    return numbers


def _list_of(column: str) -> str:
    return f"{column.replace('/', '.')}.values"


def _values(folder: Path, column: str) -> dict:
    with open(folder / _list_of(column), "rb") as lines:
        return {json.loads(line): number for number, line in enumerate(lines)}


def _write(spill: Spill, name: str, data: bytes | memoryview) -> None:
    with naming(spill.folder / name):
        if name not in spill.files:
            spill.files[name] = open(spill.folder / name, "ab")
        spill.files[name].write(data)
    spill.sizes[name] = spill.sizes.get(name, 0) + len(data)


def _cut(spill: Spill) -> None:
    """Cuts files off where the journal ends; raises ValueError where one is shorter."""
    for name, size in spill.sizes.items():
        if (spill.folder / name).stat().st_size < size:
            raise ValueError(name)
        os.truncate(spill.folder / name, size)
