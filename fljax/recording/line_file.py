"""Appends lines to a file that grows: a killed process loses none of them."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from pathlib import Path

from fljax.core.files import atomic_file, naming
from fljax.recording import checksums
from fljax.recording.checksums import Extent


class LineFile:
    """Lines on disk, the newest last.

    Every line is handed to the operating system at once; `sync` forces all of them to disk and
    notes their checksum.
    """

    def __init__(self, path: str | Path, kept: Iterable[bytes] | None = None):
        """Opens a file, which is created if absent.

        Args:
          path: Of the file.
          kept: Lines, without their ends, that take the place of all that the file holds; None
            leaves it as it is.
        """
        self.path = Path(path)
        if kept is not None:
            checksums.note(self.path, None)
            with atomic_file(self.path) as file:
                file.writelines(line + b"\n" for line in kept)
        with naming(self.path):
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
        self._extent = Extent().plus(self.path.read_bytes())
        self._open = True

    def append(self, lines: Iterable[bytes]) -> None:
        """Appends lines, given without their ends.

        Raises:
          OSError: They cannot be written; the message names the file.
        """
        data = b"".join(line + b"\n" for line in lines)
        left = memoryview(data)
        with naming(self.path):
            while left:
                left = left[os.write(self._descriptor, left) :]
        self._extent = self._extent.plus(data)

    def sync(self) -> Extent:
        """Forces all lines to disk; returns how far the file goes.

        Raises:
          FileNotFoundError: The file was removed, or another one has its place.
        """
        with naming(self.path):
            os.fsync(self._descriptor)
        try:
            is_there = os.path.samestat(os.fstat(self._descriptor), os.stat(self.path))
        except OSError:
            is_there = False
        if not is_there:
            what = "removed while it was written, and what it held is lost"
            raise FileNotFoundError(errno.ENOENT, what, str(self.path))
        checksums.note(self.path, self._extent)
        return self._extent

    def close(self) -> None:
        """Lets go of the file, which `sync` has brought to disk; a second call does nothing."""
        if self._open:
            self._open = False
            os.close(self._descriptor)
