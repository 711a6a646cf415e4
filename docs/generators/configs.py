"""Makes the page of all configurations of ours, from their docstrings."""

from __future__ import annotations

import ast
import re

from fljax.commands.configs import purposes
from generators.outside import ROOT

# configuration -> pictures of docs/ that it made
PICTURES = {
    "compression_tradeoff": ("compression_tradeoff.png",),
    "privacy_utility": ("privacy_utility.png",),
    "sweep_fedopt_lr": (
        "fedopt_sgd.png", "fedopt_momentum.png", "fedopt_adagrad.png", "fedopt_adam.png",
        "fedopt_yogi.png",
    ),
}  # fmt: skip


def page() -> str:
    """Returns the Markdown of the page.

    Example:
      >>> page().startswith("# Configs of ours")
      True
    """
    paths = sorted((ROOT / "configs").glob("*.py"))
    return "\n".join([_BEGINNING, *(_entry(path) for path in paths)])


def _entry(path) -> str:
    docstring = ast.get_docstring(ast.parse(path.read_text())) or ""
    title, _, rest = docstring.partition("\n\n")
    lines = [f"## {path.stem}", "", f"**{' '.join(title.split())}**", "", _prose(rest), ""]
    calls = [f"fljax {use} {path.stem} --workdir=runs/{use}" for use in purposes(path.stem)]
    lines += ["```bash", *calls, "```", ""]
    lines += [f"The file: `configs/{path.name}`.", ""]
    lines += [f"![{path.stem}]({picture})\n" for picture in PICTURES.get(path.stem, ())]
    return "\n".join(lines)


def _prose(text: str) -> str:
    """Sets apart what a docstring says of costs and results."""
    return re.sub(r"(^|\n|(?<=\. ))(Costs|Reaches): ?", r"\n\n**\2:** ", text).strip()


_BEGINNING = """# Configs of ours

One file an experiment. Each says in its docstring what it reproduces, what it costs and what it
reached. `fljax run NAME` finds those of ours by name; a path names one of your own. A text
behind the name and a colon chooses one of several settings, where a file has them.
"""
