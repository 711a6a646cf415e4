"""Locks a directory: of two processes that would write there, the second is refused."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # not a Unix: who holds the lock is known from the file alone
    fcntl = None

from fljax.core.files import check_kind, naming

LOCK = ".lock"
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)


@contextlib.contextmanager
def locked(directory: str | Path) -> Iterator[None]:
    """Holds a directory for this process alone, and creates it if absent.

    The system gives the lock back when its process ends, however it ends, so nothing that was left
    behind blocks. Where a file system has no locks, a live process on this machine counts as one.
    A directory that was created here and is still empty in the end is removed.

    Raises:
      BlockingIOError: Another process holds the directory; the message says which.
      NotADirectoryError: It is a file.
    """
    directory = Path(directory)
    if directory.exists() and not directory.is_dir():
        raise NotADirectoryError(
            errno.ENOTDIR, "it is a file; give another --workdir", str(directory)
        )
    is_new = not directory.exists()
    with naming(directory):
        directory.mkdir(parents=True, exist_ok=True)
    path = directory / LOCK
    check_kind(path)
    with naming(path):
        descriptor = _acquired(path)
    try:
        yield
    finally:
        # before the lock is given back: whoever waits for it looks whether the file is still there
        with contextlib.suppress(OSError):
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                path.unlink()
                if is_new:
                    directory.rmdir()
        os.close(descriptor)


def _acquired(path: Path) -> int:
    """Returns the descriptor of the lock file, once this process holds it."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            holder = os.pread(descriptor, 400, 0).decode(errors="replace").strip()
            if not _is_free(descriptor, holder):
                raise BlockingIOError(
                    f"{path.parent} is in use by {holder or 'another process'}. Wait for it, end "
                    "it, or give another --workdir."
                )
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                    os.ftruncate(descriptor, 0)
                    os.pwrite(descriptor, _own_name().encode(), 0)
                    return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # its holder had removed it


def _own_name() -> str:
    return f"process {os.getpid()} on {socket.gethostname()}"


def _is_free(descriptor: int, holder: str) -> bool:
    """Takes the lock if nobody has it."""
    if fcntl is not None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                return False
    return not _is_alive(holder)


def _is_alive(holder: str) -> bool:
    """Returns whether a process of this machine, as `_own_name` names it, is there."""
    match holder.split():
        case ["process", pid, "on", host] if pid.isdecimal() and host == socket.gethostname():
            try:
                os.kill(int(pid), 0)
            except ProcessLookupError:
                return False
            except OSError:
                return True
            return True
    return False
