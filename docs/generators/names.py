"""Makes the tables of other simulators' names and ours, from the table that answers wrong keys."""

from __future__ import annotations

import re

from fljax.core.names import FOREIGN_NAMES

_MARK = re.compile(r"^<!-- names: (.+?) -->$", re.MULTILINE)


def filled(markdown: str) -> str:
    """Returns a page with a table behind each `<!-- names: FRAMEWORK -->`.

    Example:
      >>> "| `cohort_size` | `clients_per_round` |  |" in filled("<!-- names: pfl-research -->")
      True
    """
    return _MARK.sub(lambda match: table(match[1]), markdown)


def table(framework: str) -> str:
    """Returns the table of one framework's names, those that several have included.

    Raises:
      ValueError: If no name is known of the framework.
    """
    own = [row for row in FOREIGN_NAMES.items() if row[1][0] == framework]
    if not own:
        known = sorted({whose for whose, _, _ in FOREIGN_NAMES.values() if whose})
        raise ValueError(f"No names are known of {framework!r}; of {', '.join(known)}.")
    several = [row for row in FOREIGN_NAMES.items() if not row[1][0]]
    lines = [f"| {framework}, or several | fljax | mind |", "| --- | --- | --- |"]
    lines += [f"| `{name}` | `{ours}` | {note} |" for name, (_, ours, note) in own + several]
    return "\n".join(lines)
