"""Opens SQLite databases to be read, packed by LZMA or not, and says in one line what is broken."""

from __future__ import annotations

import errno
import lzma
import pathlib
import shutil
import sqlite3
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from fljax.core.archives import refused, whole

_CHUNK_BYTES = 1 << 20


class Database:
    """A database that is open to be read; what was unpacked for it goes when it is dropped.

    Args:
      path: Of the file; one whose name ends in .lzma or .xz is unpacked into a temporary file.
      tables: Names of tables that must be there.

    Raises:
      ValueError: If the file is truncated, corrupt or no such database; the message names it.
    """

    def __init__(self, path: pathlib.Path, tables: Sequence[str]):
        self.path = path
        with readable(path):
            plain, folder = _unpacked(path)
            # "immutable" since nobody writes to it: nothing is locked, folders may be read-only
            address = f"{plain.absolute().as_uri()}?mode=ro&immutable=1"
            connection = sqlite3.connect(address, uri=True, check_same_thread=False)
            weakref.finalize(self, _close, connection, folder)
            found = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
            if missing := [name for name in tables if name not in found]:
                has = ", ".join(sorted(found)) or "none"
                raise refused(path, f"has no table {missing[0]!r}, but these: {has}")
        self._connection = connection

    def rows(self, query: str, arguments: Sequence = ()) -> Iterator[tuple]:
        """Yields what a query finds.

        Raises:
          ValueError: If the database turns out to be broken.
        """
        with readable(self.path):
            yield from self._connection.execute(query, arguments)

    def later_rows(
        self, columns: str, table: str, where: str, arguments: Sequence, skip: int
    ) -> Iterator[tuple]:
        """Yields rows of a table in the order in which they were written, but the first ones.

        Args:
          columns: Their names.
          table: The table's.
          where: A condition.
          arguments: What the question marks of `where` stand for.
          skip: How many rows are left out; they are passed over, not read.
        """
        after = -(1 << 63)
        if skip:
            numbers = f"SELECT rowid FROM {table} WHERE {where} ORDER BY rowid LIMIT 1 OFFSET ?"
            last = next(self.rows(numbers, [*arguments, skip - 1]), None)
            if last is None:
                return
            (after,) = last
        query = f"SELECT {columns} FROM {table} WHERE {where} AND rowid > ? ORDER BY rowid"
        yield from self.rows(query, [*arguments, after])


@contextmanager
def readable(path: pathlib.Path) -> Iterator[None]:
    """Turns what SQLite and decoders raise on broken files into a ValueError of one line."""
    with whole(path, "get it again"):
        try:
            yield
        except sqlite3.Error as error:
            raise EOFError(str(error)) from error


def _unpacked(path: pathlib.Path) -> tuple[pathlib.Path, str | None]:
    """Returns (the database, the temporary folder that was made for it)."""
    if path.suffix not in (".lzma", ".xz"):
        return path, None
    folder = tempfile.mkdtemp(prefix="fljax-")
    plain = pathlib.Path(folder) / path.stem
    try:
        with lzma.open(path) as packed, open(plain, "wb") as file:
            shutil.copyfileobj(packed, file, _CHUNK_BYTES)
    except BaseException as error:
        shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise refused(
                path,
                f"is larger when it is unpacked than the room in {tempfile.gettempdir()}: name a "
                "folder with more in the environment variable TMPDIR",
            ) from None
        raise
    return plain, folder


def _close(connection: sqlite3.Connection, folder: str | None) -> None:
    connection.close()
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)
