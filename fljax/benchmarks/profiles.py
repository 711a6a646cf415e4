"""Lists the operations of a profiler trace, longest first."""

from __future__ import annotations

import collections
import gzip
import json
import re
from pathlib import Path
from typing import NamedTuple

# these contain the others
_CONTAINERS = re.compile(r"(while|conditional|call|command_buffer)[.\d]*$")


class Profile(NamedTuple):
    """The time of a trace and of its operations.

    Attributes:
      busy_seconds: Seconds of all operations, over all devices.
      operations: (name without its number, seconds, count), longest first.
    """

    busy_seconds: float
    operations: list[tuple[str, float, int]]


def read(directory: str | Path, top: int = 10) -> Profile:
    """Reads what `jax.profiler.trace` left in a directory.

    Raises:
      FileNotFoundError: If there is no trace.
    """
    paths = sorted(Path(directory).rglob("*.trace.json.gz"))
    if not paths:
        raise FileNotFoundError(f"{directory} holds no *.trace.json.gz.")
    with gzip.open(paths[-1]) as file:
        events = json.load(file)["traceEvents"]
    seconds: collections.Counter = collections.Counter()
    counts: collections.Counter = collections.Counter()
    for event in events:
        operation = event.get("args", {}).get("hlo_op") if event.get("ph") == "X" else None
        if operation and not _CONTAINERS.match(operation):
            name = re.sub(r"[.\d]+$", "", operation)
            seconds[name] += event["dur"] * 1e-6
            counts[name] += 1
    longest = [(name, total, counts[name]) for name, total in seconds.most_common(top)]
    return Profile(sum(seconds.values()), longest)
