"""Reads what a container or a scheduler grants to its processes, by Linux's control groups.

A container sees all cores and all memory of its machine, and is slowed down or ended where it takes
more than its share. Both versions of control groups are read; a group's share is the least of its
own and its parents'.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

_MOUNT, _GROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
# where version 1 has the files of a controller, which may be mounted with another one
_FOLDERS = {"cpu": ("cpu", "cpu,cpuacct"), "memory": ("memory",)}


def granted_cores(mount: Path = _MOUNT, groups: Path = _GROUPS) -> int | None:
    """Returns how many cores this process may keep busy, at least one; None where all.

    Args:
      mount: Directory of the control groups.
      groups: File that says which ones the process is in.

    Example:
      >>> granted_cores(Path("no such directory")) is None
      True
    """
    shares = []
    for path in _directories("cpu", mount, groups):
        text = _read(path / "cpu.max") or " ".join(
            _read(path / f"cpu.cfs_{name}_us") for name in ("quota", "period")
        )
        quota, _, period = text.partition(" ")
        if quota.isdigit() and period.isdigit() and int(period):
            shares.append(int(quota) / int(period))
    return math.ceil(min(shares)) if shares else None


def granted_bytes(mount: Path = _MOUNT, groups: Path = _GROUPS) -> int | None:
    """Returns how much memory this process may take, in bytes; None where all.

    Args:
      mount: Directory of the control groups.
      groups: File that says which ones the process is in.

    Example:
      >>> granted_bytes(Path("no such directory")) is None
      True
    """
    texts = [
        _read(path / "memory.max") or _read(path / "memory.limit_in_bytes")
        for path in _directories("memory", mount, groups)
    ]
    # version 1 has a number beyond all machines where there is no limit
    found = [int(text) for text in texts if text.isdigit() and int(text) < 2**60]
    return min(found, default=None)


def _directories(controller: str, mount: Path, groups: Path) -> Iterator[Path]:
    """Yields the directories of the process's group and its parents, of both versions."""
    own = {"": Path("/")}  # a container is often the root of what it sees
    for line in _read(groups).splitlines():
        _, names, group = line.split(":", 2)
        own |= dict.fromkeys(names.split(","), Path(group))
    roots = {mount: ""} | {mount / folder: controller for folder in _FOLDERS[controller]}
    for root, name in roots.items():
        lowest = own.get(name, Path("/"))
        for path in (lowest, *lowest.parents):
            yield root / path.relative_to("/")


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
