"""Puts together the page of a run, or of several beside each other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fljax.core.digits import counted
from fljax.recording.page import Block, Contents, Fold, Heading, Link, Table, Text
from fljax.reports.clients import client_blocks
from fljax.reports.curves import (
    byte_charts,
    key_charts,
    metric_charts,
    other_keys,
    shown_keys,
    spent_charts,
)
from fljax.reports.environment import environment_blocks
from fljax.reports.found import Found
from fljax.reports.headline import headline, settings_line
from fljax.reports.layout import Charts
from fljax.reports.model_card import card_blocks
from fljax.reports.partition import partition_blocks
from fljax.reports.privacy import privacy_blocks
from fljax.reports.remarks import remarks
from fljax.reports.settings import difference_blocks, setting_blocks
from fljax.reports.subjects import BYTES, Subject, subjects_of
from fljax.reports.systems import system_blocks

# As many as there are colours and kinds of dashes to tell them apart.
MOST_SUBJECTS = 21
_LEFT_OUT = "Not shown here: `fljax report` loads the data again, and shows who holds which labels."
_MESSAGE = "comm/client_uplink_bytes_mean"
# Names before a remark that holds for many.
_MOST_LISTED = 5
# Charts of numbers that no other part shows.
_MOST_OTHERS = 120


def run_page(found: Found, directory: Path, *, partition: bool = True) -> list[Block | Charts]:
    """Returns the content of the page of what directories hold.

    Args:
      found: What they hold.
      directory: Where the page will lie, from which its links start.
      partition: Whether the data are loaded again, to show who holds which labels.
    """
    subjects = subjects_of(found.runs)
    page: list[Block | Charts] = [Heading(_title(found, subjects), 1)]
    page += [
        Text(f"*Not shown*: {label}: {why.rstrip('.')}.") for label, why in found.problems.items()
    ]
    page += _neighbours(found, directory)
    if not subjects:
        return page
    shown = subjects[:MOST_SUBJECTS]
    if len(subjects) == 1 and (line := settings_line(subjects[0].run.config)):
        page.append(Text(line))
    page.append(headline(subjects))
    if len(shown) < len(subjects):
        page.append(Text(f"Below, the first {len(shown)} of {len(subjects)} are shown."))
    page += [*_remarks(found, shown), Contents()]
    page += difference_blocks(shown)
    page += [Heading("Curves"), Text(_reading(shown)), Charts(metric_charts(shown))]
    page += client_blocks(shown)
    page += partition_blocks(shown) if partition else [Heading("Partition"), Text(_LEFT_OUT)]
    page += communication_blocks(shown)
    page += privacy_blocks(shown)
    page += system_blocks(shown)
    page += setting_blocks(shown)
    page += environment_blocks(shown)
    page += card_blocks(shown)
    return page + number_blocks(shown)


def communication_blocks(subjects: Sequence[Subject]) -> list[Block | Charts]:
    """Returns the part of a page about bytes; nothing where nothing was sent."""
    charts = [*byte_charts(subjects), *spent_charts(subjects, BYTES)]
    if not charts:
        return []
    # where all messages have one size, it stands among the numbers that stay the same
    changing, _ = other_keys(subjects, [])
    title = "A client's message to the server, mean"
    charts += [
        chart._replace(title=title, y_label="Bytes", from_zero=True)
        for chart in key_charts(subjects, {_MESSAGE} & set(changing))
    ]
    return [
        Heading("Communication"),
        Text("Bytes of messages as they are encoded; whoever is sent a model counts each time."),
        Charts(charts),
    ]


def number_blocks(subjects: Sequence[Subject]) -> list[Block | Charts]:
    """Returns all numbers of the records that no chart above shows, folded."""
    changing, constant = other_keys(subjects, shown_keys(subjects))
    if not changing and not constant:
        return []
    inner: list[Block | Charts] = [Charts(key_charts(subjects, changing[:_MOST_OTHERS]))]
    if len(changing) > _MOST_OTHERS:
        rest = ", ".join(f"`{key}`" for key in changing[_MOST_OTHERS:])
        inner.append(Text(f"Without charts: {rest}."))
    if constant:
        rows = [[f"`{key}`", *(_number(subject, key) for subject in subjects)] for key in constant]
        head = ["the same in all rounds", *(subject.label for subject in subjects)]
        inner.append(Table([head, *rows]))
    title = f"{len(changing) + len(constant)} further numbers of the records"
    return [Heading("All numbers"), Fold(title, inner)]


def _number(subject: Subject, key: str) -> str:
    found = subject.spread(key).mean
    return "–" if found != found else f"{found:.6g}"


def _title(found: Found, subjects: Sequence[Subject]) -> str:
    if len(subjects) == 1 and len(found.runs) == 1:
        return subjects[0].label
    if not found.runs:
        return found.directory.resolve().name
    return f"{found.directory.resolve().name}: {len(found.runs)} runs"


def _neighbours(found: Found, directory: Path) -> list[Block | Charts]:
    """Returns links to the pages of studies and audits, which have their own."""
    links: list[Block | Charts] = []
    for kind, name, paths in (
        ("study", "report.html", found.studies), ("audit", "audit.html", found.audits)
    ):  # fmt: skip
        for path in paths:
            page = (path / name).resolve()
            if page.exists() and page.is_relative_to(directory.resolve()):
                target = page.relative_to(directory.resolve()).as_posix()
                links.append(Link(target, f"The {kind} {path.name} has a page of its own"))
            else:
                links.append(Text(f"{path.name} is a {kind}; its own page is `{path / name}`."))
    return links


def _remarks(found: Found, subjects: Sequence[Subject]) -> list[Block | Charts]:
    said = {one.run.directory: one.warnings for one in found.runs}
    whose: dict[str, list[str]] = {}
    for subject in subjects:
        warnings = [text for run in subject.runs for text in said.get(run.directory, ())]
        for text in remarks(subject, warnings):
            whose.setdefault(text, []).append(subject.label)
    lines = [
        Text(text if len(subjects) == 1 else f"{_listed(labels, len(subjects))}: {text}")
        for text, labels in whose.items()
    ]
    return [Heading("Remarks"), *lines] if lines else []


def _listed(labels: Sequence[str], of_all: int) -> str:
    """Returns names of subjects, of many the first ones and how many others there are."""
    if len(labels) == of_all:
        return "All of them"
    rest = len(labels) - _MOST_LISTED
    named = ", ".join(labels[:_MOST_LISTED])
    return f"{named} and {counted(rest, 'other')}" if rest > 0 else named


def _reading(subjects: Sequence[Subject]) -> str:
    """Says how charts are read."""
    text = (
        "Names below a chart hide and show lines, with Shift alone; the pointer or the arrow keys "
        "show values; dragging looks closer. "
    )
    if any(len(subject.runs) > 1 for subject in subjects):
        text += "Lines of several seeds are their means, bands one standard deviation (n - 1). "
    if len({subject.run.metrics[0].name for subject in subjects}) > 1:
        text += "Tasks that are judged by unlike metrics have unlike losses, which do not compare. "
    return text + "Long curves are thinned: of each stretch its lowest and highest value stay."
