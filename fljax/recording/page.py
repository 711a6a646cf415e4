"""Pages: headings, texts, tables and pictures, as Markdown and as HTML that needs no other file."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; max-width: 64rem; margin: 2rem auto;
  padding: 0 1rem; }
table { border-collapse: collapse; font-size: 0.85em; display: block; overflow-x: auto; }
th, td { border-bottom: 1px solid #ddd; padding: 0.3em 0.7em; text-align: right; }
th.text, td.text { text-align: left; }
th:first-child, td:first-child { text-align: left; white-space: nowrap; }
code, pre { font: 0.92em ui-monospace, monospace; background: #f4f4f4; }
pre { padding: 0.8em; overflow-x: auto; }
img { max-width: 100%; }
"""


class Heading(NamedTuple):
    """A heading; level 1 is the title of the page."""

    text: str
    level: int = 2


class Text(NamedTuple):
    """A paragraph; `code` and *emphasis* are written as in Markdown."""

    text: str


class Table(NamedTuple):
    """A table of texts, the head first."""

    rows: Sequence[Sequence[str]]


class Picture(NamedTuple):
    """A picture in a file."""

    path: Path
    text: str


class Verbatim(NamedTuple):
    """Lines as they are."""

    text: str


Block = Heading | Text | Table | Picture | Verbatim


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
    return "\n\n".join(texts) + "\n"


def as_html(page: Sequence[Block]) -> str:
    """Returns a page as HTML that needs no other file: pictures are part of it."""
    body = []
    for block in page:
        match block:
            case Heading():
                body.append(f"<h{block.level}>{_inline(block.text)}</h{block.level}>")
            case Text():
                body.append(f"<p>{_inline(block.text)}</p>")
            case Table():
                head, *rows = block.rows
                texts = _of_texts(block)
                lines = [_line(head, "th", texts), *(_line(row, "td", texts) for row in rows)]
                body.append("<table>\n" + "\n".join(lines) + "\n</table>")
            case Picture():
                data = base64.b64encode(block.path.read_bytes()).decode()
                text = html.escape(block.text)
                body.append(f'<p><img alt="{text}" src="data:image/png;base64,{data}"></p>')
            case Verbatim():
                body.append(f"<pre>{html.escape(block.text)}</pre>")
    title = next((block.text for block in page if isinstance(block, Heading)), "")
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head>\n<body>\n"
        + "\n".join(body)
        + "\n</body></html>\n"
    )


def _of_texts(table: Table) -> list[bool]:
    """Returns of each column whether it holds texts, which begin at the left: it has no number."""
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
