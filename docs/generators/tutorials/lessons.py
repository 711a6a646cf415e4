"""Tutorials as the site shows them: run, held against their pages, with pictures and notebook."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from generators.tutorials.notebooks import notebook
from generators.tutorials.pages import cells, differences, unproven
from generators.tutorials.runs import ROOT, Output, run

FOLDER = ROOT / "docs" / "tutorials"
# folders of pages that are no lessons, whose code runs and is held against them all the same
OTHERS = (ROOT / "docs" / "start", ROOT / "docs" / "coming_from")


class Lesson(NamedTuple):
    """A tutorial as the site shows it.

    Attributes:
      markdown: The page, with its pictures and the link to its notebook.
      files: {name beside the page: content} of pictures and notebook.
    """

    markdown: str
    files: dict[str, bytes | str]


def pages() -> list[Path]:
    """Returns the tutorials; the list of them, `index.md`, is none."""
    return sorted(page for page in FOLDER.glob("*.md") if page.stem != "index")


def others() -> list[Path]:
    """Returns the pages that run and are no tutorials."""
    return sorted(page for folder in OTHERS for page in folder.glob("*.md"))


def faults(text: str, outputs: Sequence[str]) -> list[str]:
    """Returns in what a page differs from its run and from itself, one line each.

    Args:
      text: The page.
      outputs: What each cell prints.
    """
    found = [
        f"line {cell.line}: {difference}"
        for cell, output in zip(cells(text), outputs, strict=True)
        if (difference := differences(cell, output)) is not None
    ]
    return found + [f"the figure {figure} stands in no output" for figure in unproven(text)]


def held(page: Path) -> list[Output]:
    """Runs a page, or takes its last run; returns what its cells left behind.

    Raises:
      RuntimeError: If the page does not run.
      ValueError: If its run says something else than the page.
    """
    text, outputs = page.read_text(), run(page).outputs
    if found := faults(text, [output.text for output in outputs]):
        told = "\n  ".join(found)
        raise ValueError(f"{page}:\n  {told}\n`make tutorials` writes what is true today.")
    return outputs


def lesson(page: Path) -> Lesson:
    """Returns a tutorial as the site shows it; raises what `held` does."""
    text, outputs = page.read_text(), held(page)
    book = f"{page.stem}.ipynb"
    files: dict[str, bytes | str] = {book: notebook(text, outputs)}
    for cell, output in reversed(list(zip(cells(text), outputs, strict=True))):
        for picture in reversed(output.pictures):
            files[picture.path.name] = picture.path.read_bytes()
            shown = f"\n![{picture.title}]({picture.path.name})\n"
            text = text[: cell.end] + shown + text[cell.end :]
    title, _, rest = text.partition("\n")
    link = f'[This page as a notebook]({book}){{download="{book}"}}'
    return Lesson(f"{title}\n\n{link}\n{rest}", files)
