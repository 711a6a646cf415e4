"""Scans a large JSON object member by member, in memory of its largest member."""

from __future__ import annotations

import codecs
import json
import pathlib
from collections.abc import Iterator
from typing import Any

from fljax.core.archives import open_bounded, refused

_CHUNK_BYTES = 1 << 20
# An error so near the end of what has been read may be one of reading too little.
_NEAR = 1024
_SPACE = " \t\r\n"


def members(path: pathlib.Path, inside: str) -> Iterator[tuple[str, str | None, Any]]:
    """Yields the members of the object in a file; one of them is opened, and its own are yielded.

    Args:
      path: Of the file, in UTF-8, gzipped if its name ends in .gz.
      inside: The key of the member whose members are yielded one by one.

    Yields:
      (key, None, value) of each other member, and (inside, its key, value) of each of its own, in
      the order of the file.

    Raises:
      ValueError: If the file is truncated, corrupt or no such object, or a key comes twice.
    """
    with open_bounded(path, most=1 << 62) as file:
        scan = _Scan(path, file)
        for key in scan.keys():
            if key != inside:
                yield key, None, scan.value()
                continue
            for name in scan.keys():
                yield key, name, scan.value()
        scan.end()


class _Scan:
    """A place in a JSON text of which some is in memory."""

    def __init__(self, path: pathlib.Path, file):
        self._path, self._file = path, file
        self._decode = codecs.getincrementaldecoder("utf-8")().decode
        self._json = json.JSONDecoder(object_pairs_hook=_without_repetition)
        self._text, self._at, self._passed, self._is_whole = "", 0, 0, False

    def keys(self) -> Iterator[str]:
        """Yields the keys of the object here; each value must be read before the next key."""
        self._expect("{")
        seen: set[str] = set()
        if self._next() == "}":
            self._at += 1
            return
        while True:
            if self._next() != '"':
                raise self._refused("a key in quotation marks must stand there")
            key = self.value()
            if key in seen:
                raise self._refused(f"an object has the key {key!r} twice")
            seen.add(key)
            self._expect(":")
            yield key
            if self._next() != ",":
                break
            self._at += 1
        self._expect("}")

    def value(self) -> Any:
        """Returns the whole value here."""
        self._next()
        size = _CHUNK_BYTES
        while True:
            try:
                found, end = self._json.raw_decode(self._text, self._at)
                if end < len(self._text) or self._is_whole:
                    self._at = end
                    return found
            except json.JSONDecodeError as error:
                is_cut = error.msg.startswith("Unterminated") or error.pos > len(self._text) - _NEAR
                if self._is_whole or not is_cut:
                    self._at = error.pos
                    raise self._refused(error.msg) from None
            except (ValueError, RecursionError) as error:
                raise self._refused(str(error)) from None
            self._read(size)
            size *= 2  # so that all attempts together cost no more than the last two

    def end(self) -> None:
        """Raises ValueError if more than white space follows."""
        if self._next():
            raise self._refused("more follows after the object")

    def _expect(self, sign: str) -> None:
        if self._next() != sign:
            raise self._refused(f"{sign!r} must stand there")
        self._at += 1

    def _next(self) -> str:
        """Goes to the next sign that is no white space, and returns it; "" at the end."""
        while True:
            while self._at < len(self._text) and self._text[self._at] in _SPACE:
                self._at += 1
            if self._at < len(self._text) or self._is_whole:
                return self._text[self._at : self._at + 1]
            self._read(_CHUNK_BYTES)

    def _read(self, size: int) -> None:
        """Forgets what lies behind, and reads on."""
        content = self._file.read(size)
        self._is_whole = not content
        self._passed += self._at
        self._text = self._text[self._at :] + self._decode(content, self._is_whole)
        self._at = 0

    def _refused(self, why: str) -> ValueError:
        if self._is_whole and self._at >= len(self._text) - 1:
            return refused(self._path, f"ends early ({why}): it is incomplete, get it again")
        place = self._passed + self._at
        return refused(self._path, f"is not the JSON expected, at character {place:,}: {why}")


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("an object has a key twice")
    return found
