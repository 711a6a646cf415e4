"""Writes files that are whole or not there, with errors that name the file; finds caches."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import BinaryIO


def cache_dir() -> Path:
    """Returns the folder of what runs keep: $FLJAX_CACHE_DIR, else ~/.cache/fljax."""
    chosen = os.environ.get("FLJAX_CACHE_DIR") or "~/.cache/fljax"
    return Path(chosen).expanduser()


# Is called when a run or a study has a folder; does nothing unless somebody listens.
_listener: ContextVar[Callable[[], None]] = ContextVar("listener", default=lambda: None)


@contextlib.contextmanager
def listening(call: Callable[[], None]) -> Iterator[None]:
    """Has a function called whenever `make_folder` has made one in a block."""
    token = _listener.set(call)
    try:
        yield
    finally:
        _listener.reset(token)


def make_folder(path: Path) -> None:
    """Makes the folder of a run or a study, if it is not there, and tells who listens."""
    path.mkdir(parents=True, exist_ok=True)
    _listener.get()()


@contextlib.contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """Makes every OSError of a block say which file it was about.

    A disk that is full says so of no file, and a temporary file is not the one that a user knows.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def check_kind(path: Path, directory: bool = False) -> None:
    """Raises an OSError where a file lies in place of a directory, or the other way round.

    Args:
      path: Of which nothing need be there.
      directory: Whether a directory is wanted.
    """
    if directory and path.exists() and not path.is_dir():
        raise NotADirectoryError(
            errno.ENOTDIR, "it is a file, where a run has a directory; move it away", str(path)
        )
    if not directory and path.is_dir():
        raise IsADirectoryError(
            errno.EISDIR, "it is a directory, where a run has a file; move it away", str(path)
        )


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Opens a file that takes the place of `path` only when it was written whole.

    The bytes go to a temporary file beside `path`, reach the disk, and are renamed. A kill at any
    moment leaves either the old file or the new one.

    Raises:
      OSError: The file cannot be written; the message names `path`.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with naming(path):
        try:
            with open(temporary, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
