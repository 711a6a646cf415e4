"""Writes the help pages: of the console command, and of a command from docstring and flags."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import TYPE_CHECKING

from fljax import commands

if TYPE_CHECKING:
    from absl import flags

    from fljax.commands.console import Command

_BEGINNING = """usage: fljax COMMAND ...

fljax simulates federated learning in JAX: a round is one compiled program.

    fljax run quickstart          a first run; its results go to runs/
    fljax doctor                  looks at this installation

commands:"""

_END = """
A CONFIG is the name of a configuration of ours (`fljax configs` lists them) or a file of your own.
`fljax help COMMAND` or `fljax COMMAND --help` tells more, `fljax --version` which fljax this is."""


def of_console(table: Mapping[str, Command]) -> str:
    """Returns the help page of the console command, with a line for each command."""
    width = max(len(f"{name} {command.arguments}") for name, command in table.items())
    lines = [
        f"  {f'{name} {command.arguments}':<{width}}  {command.help}"
        for name, command in table.items()
    ]
    return "\n".join([_BEGINNING, *lines, _END])


def of_command(name: str, command: Command, module: ModuleType) -> str:
    """Returns the help page of a command whose flags are defined.

    Args:
      name: Of the command.
      command: Its entry of the table.
      module: Its module; the docstring comes first on the page.
    """
    lines = [f"usage: {f'fljax {name} {command.arguments}'.rstrip()} [FLAGS]", ""]
    lines += [module.__doc__.strip(), "", "flags:"]
    width = min(100, shutil.get_terminal_size((100, 0)).columns)
    for flag in commands.own_flags():
        lines += [f"  --{_form(flag)}", *_told(flag, width)]
    if any(flag.name == "config" for flag in commands.own_flags()):
        lines += ["  --config.KEY=VALUE", *_wrapped("Sets a key; --config_help tells all.", width)]
    return "\n".join(lines)


def _form(flag: flags.Flag) -> str:
    if flag.boolean:
        return f"[no]{flag.name}"
    choices = getattr(flag.parser, "enum_values", None)
    return f"{flag.name}={'|'.join(choices) if choices else _KINDS.get(flag.flag_type(), 'TEXT')}"


_KINDS = {"int": "NUMBER", "float": "NUMBER", "comma separated list of strings": "TEXT,TEXT"}


def _told(flag: flags.Flag, width: int) -> Iterator[str]:
    text = flag.help.partition(";\n")[0]  # absl says in its own words what may be repeated
    if flag.flag_type().startswith("multi"):
        text += " May be repeated."
    if flag.default not in (None, [], False):
        text += f" Default: {flag.default_as_str}."
    yield from _wrapped(text, width)


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, initial_indent=" " * 6, subsequent_indent=" " * 6)
