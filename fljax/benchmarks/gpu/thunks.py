"""Reads what the host tells a GPU to do: XLA's sequence of thunks, as a tree.

A thunk launches a kernel, copies, or holds others: a loop, a branch, a command buffer, which is
launched as one. A loop outside of command buffers whose trip count is data copies a predicate to
the host in each iteration, and the host waits for it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

_LINE = re.compile(r"^( *)(\d+): (k\w+)")
_ROLE = re.compile(r"^( *)(condition|body|branch[ _]?\d*):\s*$")
# what launches nothing by itself, and counts by what it holds
HOLDERS = ("kWhile", "kConditional", "kCommandBuffer", "kAsyncStart", "kAsyncDone", "kSequential")


class Thunk(NamedTuple):
    """A thunk.

    Attributes:
      kind: XLA's name of its kind, such as "kCopy".
      name: Of its instruction in the module.
      role: Its place within the thunk that holds it: "condition", "body", or "".
      held: The thunks that it holds; those of a fusion are parts of its launch.
    """

    kind: str
    name: str
    role: str
    held: list[Thunk]

    @property
    def launches(self) -> bool:
        """Says whether it launches a kernel, or copies."""
        return self.kind not in HOLDERS


def parse(text: str, names: Mapping[int, str]) -> list[Thunk]:
    """Reads a sequence of thunks.

    Args:
      text: As XLA writes it.
      names: {number of a thunk: name of its instruction}.
    """
    top: list[Thunk] = []
    # of the thunks that are open: [indentation, what they hold, role of what comes next]
    opened: list[list[Any]] = [[-1, top, ""]]
    for line in text.splitlines():
        if found := _ROLE.match(line):
            # XLA writes the first role of a holder without its indentation
            indentation = len(found.group(1)) or opened[-1][0] + 1
            _close(opened, indentation)
            opened[-1][2] = found.group(2)
        elif found := _LINE.match(line):
            indentation, number, kind = len(found.group(1)), int(found.group(2)), found.group(3)
            _close(opened, indentation)
            _, held, role = opened[-1]
            # command buffers have no instruction, and no number
            held.append(Thunk(kind, names.get(number, kind) if number else kind, role, []))
            opened.append([indentation, held[-1].held, ""])
    return top


def _close(opened: list[list[Any]], indentation: int) -> None:
    """Closes the thunks that hold nothing of what follows with this indentation."""
    while opened[-1][0] >= indentation:
        opened.pop()
