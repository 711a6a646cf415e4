"""Says what private runs have spent, what that covers, and what it does not."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from fljax.core.digits import figures
from fljax.recording.page import Block, Fold, Heading, Table, Text
from fljax.reports.charts import Chart
from fljax.reports.curves import lines_of
from fljax.reports.layout import Charts
from fljax.reports.subjects import Subject
from fljax.training.privacy_records import EPSILON, OF_CHOICES

_NAMES = {
    "unit": "protects single", "relation": "neighbours", "sampling": "sampling",
    "noise_multiplier": "noise multiplier", "clip_norm": "clipping norm", "delta": "delta",
    "target_epsilon": "budget (epsilon)",
}  # fmt: skip


def privacy_blocks(subjects: Sequence[Subject]) -> list[Block | Charts]:
    """Returns the part of a page about privacy; nothing where nobody accounts for it."""
    private = [subject for subject in subjects if EPSILON in subject.run.curves]
    if not private:
        return []
    blocks: list[Block | Charts] = [Heading("Privacy")]
    if len(private) < len(subjects):
        open_ones = ", ".join(s.label for s in subjects if s not in private)
        blocks.append(Text(f"Not private: {open_ones}."))
    promises = [(s.label, (s.run.summary or {}).get("privacy")) for s in private]
    known = [(label, promise) for label, promise in promises if promise]
    if known:
        blocks.append(_table(known))
    lines = lines_of(private, EPSILON)
    if lines:
        title = "Epsilon spent so far, by the quick accountant"
        blocks.append(Charts([Chart(title, "Round", "Epsilon", lines, from_zero=True)]))
    covered = dict.fromkeys(promise["covers"] for _, promise in known if "covers" in promise)
    blocks += [Text(f"*Covered*: {text}.") for text in covered]
    left_out = dict.fromkeys(
        text for _, promise in known for text in promise.get("not_covered", ())
    )
    blocks += [Text(f"*Not covered*: {_as_code(text)}.") for text in left_out]
    if len(private) > 1 or any(len(subject.runs) > 1 for subject in private):
        blocks.append(Text(f"*Not covered*: {OF_CHOICES}."))
    return blocks + [block for label, promise in known for block in _of_clients(label, promise)]


def _table(known: Sequence[tuple[str, Mapping[str, Any]]]) -> Table:
    """Returns what is promised, a column a subject."""
    rows = [
        ["epsilon", *(_epsilons(promise) for _, promise in known)],
        *(
            [text, *(_text(promise.get(name)) for _, promise in known)]
            for name, text in _NAMES.items()
        ),
    ]
    rows = [row for row in rows if set(row[1:]) != {"–"}]
    return Table([["", *(label for label, _ in known)], *rows], facts=True)


def _epsilons(promise: Mapping[str, Any]) -> str:
    spent = promise.get("epsilon") or {}
    texts = (
        f"{'infinite' if value is None else figures(value)} ({name.upper()})"
        for name, value in sorted(spent.items())
    )
    return ", ".join(texts) or "–"


def _text(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value).replace("_", " ")


def _as_code(text: str) -> str:
    """Returns a text whose keys with stars, such as train/*, are code and stress nothing."""
    return re.sub(r"[\w/]+/\*", r"`\g<0>`", text)


def _of_clients(label: str, promise: Mapping[str, Any]) -> list[Block | Charts]:
    """Returns each client's own epsilon, or their spread."""
    found = promise.get("epsilon_by_client") or promise.get("epsilon_of_clients")
    if not found:
        return []
    rows = [[str(name), "infinite" if v is None else figures(v)] for name, v in found.items()]
    return [Fold(f"Epsilon of single clients, {label}", [Table([["client", "epsilon"], *rows])])]
