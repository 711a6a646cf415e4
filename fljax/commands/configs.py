"""Lists the configurations that come with fljax, or prints one to start from.

    fljax configs
    fljax configs quickstart > mine.py
    fljax configs quickstart --copy=mine.py

A configuration of ours runs by its name, `fljax run quickstart`; a file of your own by its path,
`fljax run mine.py`. Some take a text behind a colon: `fljax run mnist_mcmahan_cnn:shards`.
"""

from __future__ import annotations

import shutil
import textwrap
from pathlib import Path

from absl import app, flags

from fljax import commands
from fljax.config import shipped

# What a file is for, by the function that it defines.
PURPOSES = {
    "study": "get_study",
    "sweep": "get_sweep",
    "audit": "get_audit",
    "analytics": "get_queries",
    "monitor": "get_deployments",
}


def define() -> None:
    """Defines the flags of the list."""
    flags.DEFINE_string("copy", None, "New file that the configuration is written to.")


def main(argv: list[str]) -> int:
    """Prints the list, or a configuration."""
    names, copy = argv[1:], flags.FLAGS.copy
    if len(names) > 1 or (copy is not None and not names):
        raise app.UsageError("One configuration is printed or copied: name one.")
    if not names:
        commands.show(listed())
        return 0
    path, _ = shipped.file_and_text(names[0])
    if Path(path).parent != shipped.folder():
        raise app.UsageError(f"{path} is a file of yours, not a configuration of ours.")
    text = Path(path).read_text("utf-8")
    if copy is None:
        commands.show(text.rstrip("\n"))
        return 0
    with open(copy, "x", encoding="utf-8") as file:  # nobody's file is written over
        file.write(text)
    commands.show(f"{copy} is yours: fljax {purposes(names[0])[0]} {copy}")
    return 0


def listed(width: int | None = None) -> str:
    """Returns the names of all configurations of ours, with what they are and what they are for.

    Args:
      width: Characters of a line; by default those of the terminal, at most 120.
    """
    width = width or min(120, shutil.get_terminal_size((100, 0)).columns)
    names = shipped.names()
    longest = max(map(len, names))
    lines = []
    for name in names:
        text = f"{shipped.summary(name)} [{', '.join(purposes(name))}]"
        indent = " " * (longest + 2)
        lines += textwrap.wrap(
            text, width, initial_indent=f"{name:<{longest}}  ", subsequent_indent=indent
        )
    return "\n".join([*lines, "", f"in {shipped.folder()}; `fljax configs NAME` prints one"])


def purposes(name: str) -> list[str]:
    """Returns the commands that a configuration of ours is for, `run` for those that say nothing.

    Args:
      name: One of `fljax.config.shipped.names`, with or without ":" and a text.
    """
    defined = shipped.functions(name.partition(":")[0])
    return [command for command, function in PURPOSES.items() if function in defined] or ["run"]
