"""Compares what two runs, sweeps or studies left behind, but for what is the clock's."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fljax.recording.checkpoints import Checkpoints
from fljax.recording.checksums import CHECKSUMS
from fljax.recording.recorder import CHECKPOINTS

# Parts of names that tell of seconds, rates, memory or the day.
_CLOCK = ("time/", "throughput/", "second", "memory", "elapsed")
_COSTS = ("building", "compiling", "training", "evaluating")
# Of files that hold seconds; and the machine.
_OTHERS = ("checksum", "records", "device")


def differences(one: Path, other: Path) -> list[str]:
    """Returns what differs between two directories, a line each; bit for bit where no clock tells.

    Of checkpoints, the newest ones are compared: every leaf, and what goes with them. Of pictures
    and reports, that they are there.
    """
    names = sorted({*_files(one), *_files(other)})
    found = []
    for name in names:
        paths = one / name, other / name
        if not all(path.exists() for path in paths):
            found.append(f"{name} is in one of them only")
        elif paths[0].suffix in _READERS:
            first, second = (_READERS[path.suffix](path) for path in paths)
            if first != second:
                found.append(f"{name} differs")
    for name in sorted({*_checkpoints(one), *_checkpoints(other)}):
        if _newest(one / name) != _newest(other / name):
            found.append(f"the newest of {name} differ")
    return found


def _files(directory: Path) -> list[str]:
    return [
        str(path.relative_to(directory))
        for path in directory.rglob("*")
        if path.is_file()
        and CHECKPOINTS not in path.parts
        and path.name != CHECKSUMS
        and not path.name.startswith(".")
    ]


def _checkpoints(directory: Path) -> list[str]:
    return [str(path.relative_to(directory)) for path in directory.rglob(CHECKPOINTS)]


def _newest(directory: Path) -> Any:
    if not directory.is_dir():
        return None
    with Checkpoints(directory) as checkpoints:
        round = checkpoints.newest_whole()
        return None if round is None else _plain(checkpoints.description(round))


def _plain(value: Any) -> Any:
    """Returns JSON values without those of the clock, exactly: -0.0 is not 0.0."""
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items() if not _is_of_the_clock(key)}
    if isinstance(value, list):
        return [_plain(entry) for entry in value]
    return repr(value)


def _is_of_the_clock(key: str) -> bool:
    return key in (*_COSTS, *_OTHERS) or any(part in key for part in _CLOCK)


def _csv(path: Path) -> list[dict[str, Any]]:
    with path.open(newline="") as file:
        return [_plain(row) for row in csv.DictReader(file)]


def _npz(path: Path) -> dict[str, Any]:
    with np.load(path) as arrays:
        return {name: (str(array.dtype), array.tobytes()) for name, array in arrays.items()}


_READERS: dict[str, Callable[[Path], Any]] = {
    ".json": lambda path: _plain(json.loads(path.read_text())),
    ".jsonl": lambda path: [_plain(json.loads(line)) for line in path.read_text().splitlines()],
    ".csv": _csv,
    ".npz": _npz,
}
