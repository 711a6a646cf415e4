"""Commands end in time, and nothing that they started outlives them."""

import sys
import time
from pathlib import Path

import pytest

from fljax.benchmarks import processes

needs_proc = pytest.mark.skipif(not Path("/proc").is_dir(), reason="processes are listed in /proc")

# starts a process in a session of its own, which starts another one, and waits
TREE = """
import subprocess, sys, time
depth = int(sys.argv[1])
if depth:
    subprocess.Popen([sys.executable, __file__, str(depth - 1)], start_new_session=depth % 2 == 0)
open(f"started{depth}", "w").write(str(__import__("os").getpid()))
time.sleep(float(sys.argv[2]) if len(sys.argv) > 2 else 600)
"""


def _alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def _pids(directory, count):
    """Waits until all processes of the tree have started."""
    files = [directory / f"started{depth}" for depth in range(count)]
    end = time.monotonic() + 30
    while time.monotonic() < end and not all(file.is_file() and file.read_text() for file in files):
        time.sleep(0.05)
    return [int(file.read_text()) for file in files]


@needs_proc
def test_a_command_that_takes_too_long_ends_with_its_whole_tree(tmp_path):
    (tmp_path / "tree.py").write_text(TREE)
    done = processes.run([sys.executable, "tree.py", "2"], 3, directory=tmp_path)
    assert done.problem == "took more than 3 s"
    assert not any(map(_alive, _pids(tmp_path, 3)))


@needs_proc
def test_what_a_command_left_in_its_session_ends_with_it(tmp_path):
    (tmp_path / "tree.py").write_text(TREE)
    done = processes.run([sys.executable, "tree.py", "1", "2"], 60, directory=tmp_path)
    assert done.problem is None
    assert not any(map(_alive, _pids(tmp_path, 2)))


def test_output_and_status_are_told_apart(tmp_path):
    code = "import os, sys; print(os.environ['WHO']); sys.exit('bad luck')"
    done = processes.run([sys.executable, "-c", code], 60, environment={"WHO": "me"})
    assert done == ("ended with exit status 1", "me\n", "bad luck\n")
