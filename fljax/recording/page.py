"""Pages: headings, texts, tables and pictures, as Markdown and as HTML that needs no other file."""

from __future__ import annotations

import base64
import hashlib
import html
import re
import urllib.parse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

_STYLE = """
:root { color-scheme: light dark; --ink: #222; --soft: #5c5c5c; --rule: #ddd; --ground: #fff;
  --shade: #f4f4f4; --link: #0060a0; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e4e4; --soft: #a6a6a6; --rule: #444;
  --ground: #17181a; --shade: #25272b; --link: #7cc0f5; } }
@media print { :root { color-scheme: light; --ink: #000; --soft: #444; --rule: #bbb;
  --ground: #fff; --shade: #f4f4f4; --link: #000; } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--ground);
  max-width: 64rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; font-size: 0.85em; display: block; overflow-x: auto; }
th, td { border-bottom: 1px solid var(--rule); padding: 0.3em 0.7em; text-align: right; }
td { white-space: nowrap; }
th.text, td.text { text-align: left; white-space: normal; }
th:first-child, td:first-child { text-align: left; white-space: nowrap; }
code, pre { font: 0.92em ui-monospace, monospace; background: var(--shade); }
pre { padding: 0.8em; overflow-x: auto; }
img { max-width: 100%; background: #fff; }
a { color: var(--link); }
h1, h2, h3, p, td { overflow-wrap: break-word; }
h2, h3 { break-after: avoid; }
nav { margin: 1em 0; }
nav a { margin-right: 1em; white-space: nowrap; }
summary { cursor: pointer; font-weight: 600; }
"""


class Heading(NamedTuple):
    """A heading; level 1 is the title of the page."""

    text: str
    level: int = 2


class Text(NamedTuple):
    """A paragraph; `code` and *emphasis* are written as in Markdown."""

    text: str


class Table(NamedTuple):
    """A table of texts, the head first; of `facts`, all columns begin at the left."""

    rows: Sequence[Sequence[str]]
    facts: bool = False


class Picture(NamedTuple):
    """A picture in a file."""

    path: Path
    text: str


class Verbatim(NamedTuple):
    """Lines as they are."""

    text: str


class Link(NamedTuple):
    """A paragraph that leads to a file beside the page."""

    target: str
    text: str


class Drawings(NamedTuple):
    """Drawings side by side, as HTML; in Markdown the text stands in their place."""

    figures: Sequence[str]
    text: str


class Fold(NamedTuple):
    """Blocks below a title, which HTML shows when the title is opened."""

    title: str
    blocks: Sequence[Block]


class Contents(NamedTuple):
    """Links to the headings of level 2 that follow; nothing in Markdown."""


Block = Heading | Text | Table | Picture | Verbatim | Link | Drawings | Fold | Contents


def markdown(page: Sequence[Block], directory: Path) -> str:
    """Returns a page as Markdown; pictures are links that start from the directory."""
    texts = []
    for block in page:
        match block:
            case Heading():
                texts.append(f"{'#' * block.level} {block.text}")
            case Text():
                texts.append(block.text)
            case Table():
                head, *rows = (f"| {' | '.join(row)} |" for row in block.rows)
                rule = "|" + "".join("---|" if text else "---:|" for text in _of_texts(block))
                texts.append("\n".join([head, rule, *rows]))
            case Picture():
                texts.append(f"![{block.text}]({block.path.relative_to(directory).as_posix()})")
            case Verbatim():
                texts.append("\n".join(f"    {line}" for line in block.text.splitlines()))
            case Link():
                texts.append(f"[{block.text}]({block.target})")
            case Drawings():
                texts.append(block.text)
            case Fold():
                texts += [f"**{block.title}**", markdown(block.blocks, directory).rstrip("\n")]
    return "\n\n".join(texts) + "\n"


def as_html(page: Sequence[Block], style: str = "", script: str = "") -> str:
    """Returns a page as HTML that needs no other file: pictures are part of it.

    The page forbids browsers to load anything, and to run any script but the one given here.

    Args:
      page: Its blocks.
      style: CSS beside that of all pages.
      script: JavaScript that runs once the page is there.
    """
    title = next((block.text for block in page if isinstance(block, Heading)), "")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    may_run = f"'sha256-{digest}'" if script else "'none'"
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {may_run}"
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}{style}</style></head>\n<body>\n"
        + "\n".join(_bodies(page))
        + (f"\n<script>{script}</script>" if script else "")
        + "\n</body></html>\n"
    )


def _bodies(page: Sequence[Block]) -> Iterator[str]:
    """Yields the blocks of a page as HTML."""
    for place, block in enumerate(page):
        match block:
            case Heading():
                name = f' id="{_anchor(block, place)}"' if block.level == 2 else ""
                yield f"<h{block.level}{name}>{_inline(block.text)}</h{block.level}>"
            case Text():
                yield f"<p>{_inline(block.text)}</p>"
            case Table():
                head, *rows = block.rows
                texts = _of_texts(block)
                lines = [_line(head, "th", texts), *(_line(row, "td", texts) for row in rows)]
                yield "<table>\n" + "\n".join(lines) + "\n</table>"
            case Picture():
                data = base64.b64encode(block.path.read_bytes()).decode()
                text = html.escape(block.text)
                yield f'<p><img alt="{text}" src="data:image/png;base64,{data}"></p>'
            case Verbatim():
                yield f"<pre>{html.escape(block.text)}</pre>"
            case Link():
                target = html.escape(urllib.parse.quote(block.target))
                yield f'<p><a href="{target}">{_inline(block.text)}</a></p>'
            case Drawings():
                yield f'<div class="drawings">{"".join(block.figures)}</div>'
            case Fold():
                inner = "\n".join(_bodies(block.blocks))
                yield f"<details><summary>{_inline(block.title)}</summary>\n{inner}\n</details>"
            case Contents():
                links = [
                    f'<a href="#{_anchor(other, number)}">{_inline(other.text)}</a>'
                    for number, other in enumerate(page)
                    if number > place and isinstance(other, Heading) and other.level == 2
                ]
                yield f"<nav>{' '.join(links)}</nav>"


def _anchor(heading: Heading, place: int) -> str:
    """Returns the name by which links find a heading, which no other heading has."""
    words = re.sub(r"[^a-z0-9]+", "-", heading.text.lower()).strip("-")
    return f"{words or 'part'}-{place}"


def _of_texts(table: Table) -> list[bool]:
    """Returns of each column whether it holds texts, which begin at the left: it has no number."""
    if table.facts:
        return [True] * len(table.rows[0])
    columns = list(zip(*table.rows[1:], strict=True)) or [()] * len(table.rows[0])
    numbers = (any(re.match(r"[+−-]?\d", cell) for cell in column) for column in columns)
    words = (any(re.match(r"[`\w]", cell) for cell in column) for column in columns)
    found = [word and not number for number, word in zip(numbers, words, strict=True)]
    return [True, *found[1:]]


def _line(cells: Sequence[str], tag: str, texts: Sequence[bool]) -> str:
    """Returns a line of a table; the style has the first column at the left."""
    opened = [f'<{tag} class="text">' if text else f"<{tag}>" for text in [False, *texts[1:]]]
    written = zip(opened, map(_inline, cells), strict=True)
    return "<tr>" + "".join(f"{start}{cell}</{tag}>" for start, cell in written) + "</tr>"


def _inline(text: str) -> str:
    """Returns a text as HTML: what stands between backticks is code, between stars stressed."""
    parts = re.split(r"`([^`]*)`", text)
    return "".join(
        f"<code>{html.escape(part)}</code>"
        if place % 2
        else re.sub(r"\*([^*\s][^*]*)\*", r"<em>\1</em>", html.escape(part))
        for place, part in enumerate(parts)
    )
