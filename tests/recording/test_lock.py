"""The lock of a directory: one writer at a time, and no lock outlives its process."""

import os
import subprocess
import sys

import pytest

from fljax.recording import lock
from fljax.recording.lock import LOCK, locked


def test_a_second_writer_is_refused_by_name_and_the_next_one_is_not(tmp_path):
    with locked(tmp_path), pytest.raises(BlockingIOError, match=f"process {os.getpid()} on "):
        with locked(tmp_path):
            pass
    with locked(tmp_path / "sub"), locked(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == [], "nothing stays, not even a directory that was created"


def test_a_directory_in_which_something_was_written_stays(tmp_path):
    with locked(tmp_path / "run"):
        (tmp_path / "run" / "file").touch()
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"file"}


HOLD = """
import signal, sys
from fljax.recording import lock
if sys.argv[2] == "False":
    lock.fcntl = None
with lock.locked(sys.argv[1]):
    print("held", flush=True)
    signal.pause()
"""


@pytest.mark.parametrize("has_locks", [True, False])
def test_the_lock_of_a_killed_process_does_not_block(has_locks, tmp_path, monkeypatch):
    if not has_locks:  # as on a network file system without a lock daemon
        monkeypatch.setattr(lock, "fcntl", None)
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path), str(has_locks)], stdout=subprocess.PIPE
    )
    assert process.stdout.readline() == b"held\n"
    with pytest.raises(BlockingIOError, match=f"process {process.pid} on "), locked(tmp_path):
        pass
    process.kill()
    process.communicate()
    assert (tmp_path / LOCK).exists()
    with locked(tmp_path):
        pass


def test_a_file_is_no_directory(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match="it is a file"), locked(tmp_path / "file"):
        pass


def test_a_directory_is_no_lock(tmp_path):
    (tmp_path / ".lock").mkdir()
    with pytest.raises(IsADirectoryError, match=r"where a run has a file; move it away.*\.lock"):
        with locked(tmp_path):
            pass
