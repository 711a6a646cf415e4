"""Reads tutorials: their cells, the outputs that stand on the page, and the figures of the prose.

A tutorial is a Markdown page. Each block that is fenced as `python` is a cell; a block that is
fenced as `text` right behind it is what the cell prints. Two things are held against each other:

- outputs of the page and outputs of a run (`differences`): words must be equal, numbers near.
  `<!-- tolerance: 0.1 -->` right before an output allows its numbers to be further apart.
- figures of the prose and what the page prints (`unproven`): a number with a decimal point or a
  comma, in percent, points or times, must stand in an output or in the code of its page, rounded
  as the prose rounds it. `<!-- elsewhere: 41.3 -->` names those that were measured elsewhere.
"""

from __future__ import annotations

import re
from typing import NamedTuple

# Numbers may differ by this share, and those with decimals by one in their last place as well.
TOLERANCE = 0.02

_CELL = re.compile(
    r"^```python\n(?P<code>.*?)^```\n"
    r"(?:\n(?:<!-- tolerance: (?P<tolerance>[\d.]+) -->\n)?```text\n(?P<output>.*?)^```\n)?",
    re.DOTALL | re.MULTILINE,
)
_NUMBER = re.compile(r"(?<![\w.])[-+]?\d+(?:,\d{3})*(?:\.\d+)?(?:e[-+]?\d+)?(?![\w])", re.ASCII)
_FIGURE = re.compile(
    r"(?<![\w.,-])(?:\d+(?:,\d{3})*\.\d+|\d+(?:,\d{3})+|\d+(?= (?:%|points?\b|times\b)))"
    r"(?![\d.]*\w)"
)
_CHANGING = (
    (re.compile(r"\d[\d.,]* (?:s|ms|µs|GB|MB)(?:/\w+)?(?!\w)"), "TIME"),
    (re.compile(r"\d[\d.,]* (?:clients|rounds|examples|rows)/s"), "RATE"),
    (re.compile(r"(?<![\w.])/(?:[\w.-]+/)+[\w.-]*"), "PATH"),
)


class Cell(NamedTuple):
    """A block of code of a page.

    Attributes:
      code: The Python.
      line: How many lines stand before it.
      output: What the page says that it prints; "" where it says nothing.
      tolerance: Largest relative difference of its numbers.
      start, end: Where block and output stand in the page's text.
    """

    code: str
    line: int
    output: str
    tolerance: float
    start: int
    end: int


def cells(text: str) -> list[Cell]:
    """Returns the cells of a page, in order.

    Example:
      >>> page = "```python\\nprint(6 * 7)\\n```\\n\\n```text\\n42\\n```\\n"
      >>> [(cell.code, cell.output) for cell in cells(page)]
      [('print(6 * 7)\\n', '42\\n')]
    """
    return [
        Cell(
            match["code"],
            text.count("\n", 0, match.start("code")),
            match["output"] or "",
            float(match["tolerance"] or TOLERANCE),
            match.start(),
            match.end(),
        )
        for match in _CELL.finditer(text)
    ]


def differences(cell: Cell, output: str) -> str | None:
    """Says in what a run's output differs from that of the page; None where it does not.

    Example:
      >>> cell = Cell("", 0, "accuracy 0.951 in 3 s\\n", 0.02, 0, 0)
      >>> differences(cell, "accuracy 0.957 in 9 s\\n")
      >>> differences(cell, "accuracy 0.9 in 3 s\\n")
      '0.951 on the page, 0.9 in the run'
    """
    ours, theirs = _masked(cell.output), _masked(output)
    if _NUMBER.sub("#", ours).split() != _NUMBER.sub("#", theirs).split():
        return "words differ"
    for said, found in zip(_NUMBER.findall(ours), _NUMBER.findall(theirs), strict=True):
        place = 10.0 ** -len(said.partition(".")[2]) if "." in said and "e" not in said else 0.0
        a, b = _value(said), _value(found)
        if abs(a - b) > cell.tolerance * max(abs(a), abs(b)) + 1.001 * place:
            return f"{said} on the page, {found} in the run"
    return None


def with_outputs(text: str, outputs: list[str]) -> str:
    """Returns the page with the outputs of a run in place of those that differ."""
    for cell, output in reversed(list(zip(cells(text), outputs, strict=True))):
        if (cell.output or output) and differences(cell, output) is not None:
            block = text[cell.start : cell.end]
            if cell.output:
                head, _, _ = block.rpartition("```text\n" + cell.output)
            else:
                head = block + "\n"
            written = head + f"```text\n{output}```\n" if output else head.rstrip("\n") + "\n"
            text = text[: cell.start] + written + text[cell.end :]
    return text


def prose(text: str) -> str:
    """Returns a page without its blocks, comments, links' targets and arXiv numbers."""
    text = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r"\]\([^)]*\)", "]", text)
    return re.sub(r"`[^`\n]*`|\b\d{4}\.\d{4,5}\b", "", text)


def unproven(text: str) -> list[str]:
    """Returns the figures of the prose that neither code nor outputs of the page have.

    Example:
      >>> block = "```python\\nprint(x)\\n```\\n\\n```text\\n0.9526\\n```\\n"
      >>> unproven("It reaches 0.95, or 95.3 %, and not 0.96.\\n" + block)
      ['0.96']
    """
    blocks = [part for cell in cells(text) for part in (cell.code, cell.output)]
    known = [abs(_value(number)) for block in blocks for number in _NUMBER.findall(block)]
    elsewhere = re.findall(r"<!-- elsewhere: (.*?) -->", text, re.DOTALL)
    named = {figure.strip(" \n") for group in elsewhere for figure in group.split(";")}
    return [
        figure
        for figure in _FIGURE.findall(prose(text))
        if figure not in named and not any(_rounds_to(number, figure) for number in known)
    ]


def _rounds_to(number: float, figure: str) -> bool:
    """Returns whether a number, or its percentage, is written so when it is rounded."""
    places = len(figure.partition(".")[2])
    half = 0.5001 * 10.0**-places
    return any(abs(scale * number - _value(figure)) <= half for scale in (1, 100))


def _value(number: str) -> float:
    return float(number.replace(",", ""))


def _masked(output: str) -> str:
    for pattern, name in _CHANGING:
        output = pattern.sub(name, output)
    return output
