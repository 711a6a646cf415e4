"""Checks what a run leaves behind: a file that changed on disk is named, not believed.

`checksums.json` beside the files holds for each of them its bytes and their CRC-32. A file that is
replaced as a whole has two entries, what it was and what it becomes, since a kill may fall between
the two writes. One that grows is known as far as it had been forced to disk, so its entry stays
right whatever is appended. Files that have no entry are read as they are: those of older runs, and
all of them where somebody removed `checksums.json` to change one by hand.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from fljax.core.files import atomic_file, check_kind

CHECKSUMS = "checksums.json"


class Extent(NamedTuple):
    """The first bytes of a file.

    Attributes:
      size: Their number.
      crc32: Their checksum.
    """

    size: int = 0
    crc32: int = 0

    def plus(self, data: bytes) -> Extent:
        """Returns the extent of a file to which `data` is appended."""
        return Extent(self.size + len(data), zlib.crc32(data, self.crc32))

    def begins(self, data: bytes) -> bool:
        """Returns whether `data` begins with those bytes."""
        return len(data) >= self.size and zlib.crc32(data[: self.size]) == self.crc32


def replace(path: Path, data: bytes) -> None:
    """Writes a file atomically and notes its checksum."""
    known = _known(path.parent)
    entries = [*known.get(path.name, ())[-1:], Extent().plus(data)]
    _write(path.parent, known | {path.name: entries})
    with atomic_file(path) as file:
        file.write(data)


def note(path: Path, extent: Extent | None) -> None:
    """Notes how far a file that grows is on disk; None where that is not known for a while."""
    known = _known(path.parent)
    own = {} if extent is None else {path.name: [extent]}
    changed = {name: entry for name, entry in known.items() if name != path.name} | own
    if changed != known:
        _write(path.parent, changed)


def read(path: Path, extent: Extent | None = None) -> bytes:
    """Returns the bytes of a file.

    Args:
      path: Of the file.
      extent: What of it is read, known from elsewhere; None reads all of it and knows it by its
        entry.

    Raises:
      ValueError: They are not those that were written; the message names the file.
    """
    check_kind(path)
    # the file first; and again, if it was replaced before its entry was read
    for _ in range(2):
        data = path.read_bytes()
        if extent is not None:
            data, entries = data[: extent.size], [extent]
        else:
            entries = _read(path.parent).get(path.name)
        if entries is None or any(entry.begins(data) for entry in entries):
            return data
    raise ValueError(
        f"{path} is damaged: it is not what was written, by its checksum. Put it back from a "
        f"copy; or, if you changed it yourself, remove {CHECKSUMS} beside it."
    )


def _known(directory: Path) -> dict[str, list[Extent]]:
    """Returns the entries for a writer, who begins anew where they are damaged."""
    try:
        return _read(directory)
    except ValueError:
        return {}


def _read(directory: Path) -> dict[str, list[Extent]]:
    path = directory / CHECKSUMS
    try:
        found = json.loads(path.read_bytes())
        return {
            name: [Extent(int(size), int(crc)) for size, crc in entries]
            for name, entries in found.items()
        }
    except FileNotFoundError:
        return {}
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} is damaged: {error}. Remove it to read the files beside it unchecked."
        ) from None


def _write(directory: Path, entries: Mapping[str, Sequence[Extent]]) -> None:
    text = json.dumps(dict(sorted(entries.items())), indent=1)
    with atomic_file(directory / CHECKSUMS) as file:
        file.write(text.encode() + b"\n")
