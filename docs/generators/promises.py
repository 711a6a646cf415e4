"""Makes the page that says by which test each promise is held, from the tests themselves."""

from __future__ import annotations

import re
from pathlib import Path

from generators.outside import ROOT


def page() -> str:
    """Returns the Markdown of the page.

    Example:
      >>> "| invariant | shown by |" in page()
      True
    """
    files = sorted((ROOT / "tests").rglob("test_*.py"))
    rooms = sorted({path.relative_to(ROOT / "tests").parent.as_posix() for path in files})
    tests = sum(_count(path) for path in files)
    beginning = _BEGINNING.format(files=len(files), tests=f"{tests:,}")
    return "\n".join([beginning, invariants(), _BETWEEN, *(_room(room, files) for room in rooms)])


def invariants() -> str:
    """Returns the table of invariants and their tests that docs/design.md has.

    Example:
      >>> invariants().splitlines()[0]
      '| invariant | shown by |'
    """
    design = (ROOT / "docs/design.md").read_text()
    section = design.partition("\n## Invariants and their tests\n")[2].partition("\n## ")[0]
    return section.strip() + "\n"


def _room(room: str, files: list[Path]) -> str:
    title = "The whole" if room == "." else room
    lines = [f"### {title}", "", "| file | says | tests |", "| --- | --- | --- |"]
    for path in files:
        if path.parent == ROOT / "tests" / room:
            name = path.relative_to(ROOT).as_posix()
            lines.append(f"| `{name}` | {_says(path)} | {_count(path)} |")
    return "\n".join(lines) + "\n"


def _says(path: Path) -> str:
    """Returns the first sentence of a file of tests."""
    found = re.match(r'"""(.*?)(?:\n\n|""")', path.read_text(), re.DOTALL)
    return " ".join(found[1].split()).replace("|", "\\|") if found else ""


def _count(path: Path) -> int:
    return len(re.findall(r"^ *def test_", path.read_text(), re.MULTILINE))


_BEGINNING = """# How every promise is tested

What the pages promise is held by tests; each has one place where it stands, and this page is made
of the tests when the site is built. Of {files} files with {tests} test functions, many of which run
with several sets of arguments, the first table has the promises and the second part has the files.
`make test` runs all of them, `make check` those that take a minute.

What is computed is compared with an independent loop over clients in float64 NumPy, on clients of
unlike sizes, or with an identity; contracts are held on one lane and on several devices with
several lanes each. [Contributing](../CONTRIBUTING.md#tests) says how tests
are written here.

## Promises
"""

_BETWEEN = """
## Files of tests
"""
