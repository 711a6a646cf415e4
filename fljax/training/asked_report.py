"""Writes down what clients have answered: as JSON values, and as a table to read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fljax.core.digits import counted, figures
from fljax.recording.jsonio import plain
from fljax.training.analytics import Reply

# Numbers of an answer that a table shows.
_SHOWN = 6
_COLUMNS = ("name", "query", "answer", "standard error", "epsilon", "uplink", "seconds")


def as_plain(reply: Reply) -> dict[str, Any]:
    """Returns a reply as JSON values.

    Example:
      >>> from fljax.analytics.query import Answer
      >>> answer = Answer(np.array([2.5]), 0.0, "value", "exact")
      >>> reply = Reply("mean", [answer], None, {"rounds": 1})
      >>> as_plain(reply)["answers"][0]["value"], as_plain(reply)["privacy"]
      ([2.5], None)
    """
    return plain(
        {
            "query": reply.query,
            "answers": [answer._asdict() for answer in reply.answers],
            "privacy": reply.privacy,
            "facts": reply.facts,
        }
    )


def table_of(replies: Mapping[str, Reply]) -> str:
    """Returns a table of replies, and what they spend of privacy together.

    Args:
      replies: {name: reply}.

    Example:
      >>> from fljax.analytics.query import Answer
      >>> facts = {"uplink_bytes": 80, "seconds": 1.5}
      >>> reply = Reply("mean", [Answer(2.5, 0.1, "value", "noise")], None, facts)
      >>> print(table_of({"age": reply}))
      name  query  answer  standard error  epsilon  uplink    seconds
      age   mean   2.500   0.1000          -        80 bytes  1.5
    """
    rows = [_COLUMNS, *(_row(name, reply) for name, reply in replies.items())]
    widths = [max(len(row[place]) for row in rows) for place in range(len(_COLUMNS))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    promises = [reply.privacy for reply in replies.values() if reply.privacy is not None]
    if len(promises) > 1:
        epsilon, delta = sum(map(_epsilon, promises)), sum(each["delta"] for each in promises)
        lines.append(
            f"All together: epsilon {figures(epsilon)} at delta = {delta:.3g} at most (basic "
            "composition)."
        )
    return "\n".join(lines)


def _row(name: str, reply: Reply) -> tuple[str, ...]:
    answer, facts = reply.answer, reply.facts
    return (
        name,
        reply.query,
        _text(answer.value),
        "-" if answer.standard_error is None else _text(answer.standard_error),
        "-" if reply.privacy is None else figures(_epsilon(reply.privacy)),
        counted(facts["uplink_bytes"], "byte"),
        f"{facts['seconds']:.1f}",
    )


def _epsilon(privacy: Mapping[str, Any]) -> float:
    return min(privacy["epsilon"].values())


def _text(value: Any) -> str:
    """Returns an answer in a cell: its first numbers, items or words."""
    if isinstance(value, Mapping):
        parts = [f"{item}: {_number(number)}" for item, number in value.items()]
    elif isinstance(value, list | np.ndarray):
        parts = [_number(each) for each in np.ravel(value)]
    else:
        return _number(value)
    more = [f"... ({len(parts)})"] if len(parts) > _SHOWN else []
    return " ".join([*parts[:_SHOWN], *more])


def _number(value: Any) -> str:
    if isinstance(value, str):
        return repr(str(value))
    return str(int(value)) if float(value).is_integer() else figures(float(value))
