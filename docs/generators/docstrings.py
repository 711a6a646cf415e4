"""Reads docstrings as fljax writes them: an "Example:", and arguments that share a line."""

from __future__ import annotations

import re
from typing import Any

import griffe

_EXAMPLE = re.compile(r"^Example:$", re.MULTILINE)
# "  low, high: Text" and the lines that belong to it
_SHARED = re.compile(r"^  ([*\w]+(?:, [*\w]+)+): (.*(?:\n    .*|\n(?=\n    ))*)", re.MULTILINE)


class Docstrings(griffe.Extension):
    """Turns each docstring into what Griffe knows."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Renames the section of examples and gives each argument a line of its own."""
        if obj.docstring:
            text = _EXAMPLE.sub("Examples:", obj.docstring.value)
            obj.docstring.value = _SHARED.sub(_apart, text)


def _apart(match: re.Match) -> str:
    return "\n".join(f"  {name}: {match[2]}" for name in match[1].split(", "))
