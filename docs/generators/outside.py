"""Puts what lies outside of docs/ into the site: pages of the checkout's top, files to read.

Pages link to each other, to the top-level pages and to files of the checkout as they lie, so that
links hold in an editor as well. `rewritten` turns them to where the site has these things.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parents[2]
# page of the checkout -> page of the site
INCLUDED = {
    "README.md": "overview.md",
    "BENCHMARKS.md": "benchmarks.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "CODE_OF_CONDUCT.md": "conduct.md",
    "SECURITY.md": "security.md",
}
_FENCE = re.compile(r"^( *)(```+|~~~+).*?^\1\2[`~]*[ ]*$", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"(\]\()(?!https?:|mailto:|#|/)([^)#\s]+)")
_PATH = re.compile(r"(?<!\[)`((?:[\w.-]+/)+[\w.-]+\.(?:py|txt|toml|yaml|sub|sh|md))`(?!\])")


def included() -> dict[str, str]:
    """Returns {page of the site: its Markdown} of the pages at the top of the checkout.

    Example:
      >>> sorted(included())[:3]
      ['benchmarks.md', 'changelog.md', 'conduct.md']
    """
    return {page: (ROOT / path).read_text() for path, page in INCLUDED.items()}


def place(path: str) -> str:
    """Returns where the site has a file of the checkout.

    Example:
      >>> place("docs/data.md"), place("README.md"), place("tests/toy.py")
      ('data.md', 'overview.md', 'source/tests/toy.py.md')
    """
    if path in INCLUDED:
        return INCLUDED[path]
    if path.startswith("docs/") and not path.endswith(".py"):
        return path.removeprefix("docs/")
    return f"source/{path}.md"


def origin(page: str) -> str:
    """Returns the file of the checkout that a page of the site is written in.

    Example:
      >>> origin("data.md"), origin("overview.md")
      ('docs/data.md', 'README.md')
    """
    return next((path for path, shown in INCLUDED.items() if shown == page), f"docs/{page}")


def rewritten(markdown: str, page: str) -> str:
    """Turns links and names of files to where the site has them.

    Args:
      markdown: A page as it lies in the checkout.
      page: The page of the site that it is, such as "concepts/round.md".

    Returns:
      The same text, where relative links lead to pages of the site, and names of files of the
      checkout, as code, are links to their text. Blocks of code stay as they are.

    Example:
      >>> rewritten("See [tests](../tests/toy.py) and `tests/toy.py`.", "data.md")
      'See [tests](source/tests/toy.py.md) and [`tests/toy.py`](source/tests/toy.py.md).'
    """
    folder = PurePosixPath(origin(page)).parent

    def link(match: re.Match) -> str:
        path = os.path.normpath(folder / match[2])
        if not (ROOT / path).is_file():  # a page that is made, or nothing: mkdocs says which
            return match[0]
        return match[1] + os.path.relpath(place(path), PurePosixPath(page).parent)

    def named(match: re.Match) -> str:
        if not (ROOT / match[1]).is_file():
            return match[0]
        return f"[`{match[1]}`]({os.path.relpath(place(match[1]), PurePosixPath(page).parent)})"

    return "".join(
        part if code else _PATH.sub(named, _LINK.sub(link, part)) for part, code in _parts(markdown)
    )


def sources(pages: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Returns {page of the site: its Markdown} of the files that pages link to.

    Args:
      pages: (page of the site, its rewritten Markdown) of all pages.

    Example:
      >>> list(sources([("data.md", "See [tests](source/tests/toy.py.md).")]))
      ['source/tests/toy.py.md']
    """
    found = set()
    for page, markdown in pages:
        for text, code in _parts(markdown):
            for match in () if code else _LINK.finditer(text):
                target = os.path.normpath(PurePosixPath(page).parent / match[2])
                if target.startswith("source/"):
                    found.add(target)
    return {page: _source(page) for page in sorted(found)}


def _source(page: str) -> str:
    path = page.removeprefix("source/").removesuffix(".md")
    language = {"py": "python", "sh": "bash"}.get(path.rpartition(".")[2], "text")
    text = (ROOT / path).read_text().rstrip()
    # many letters of code, which a search for a word of the pages should not find
    return f"---\nsearch:\n  exclude: true\n---\n# {path}\n\n~~~~~~{language}\n{text}\n~~~~~~\n"


def _parts(markdown: str) -> Iterable[tuple[str, bool]]:
    """Yields a text in parts: (part, whether it is a block of code)."""
    at = 0
    for match in _FENCE.finditer(markdown):
        yield markdown[at : match.start()], False
        yield match[0], True
        at = match.end()
    yield markdown[at:], False
