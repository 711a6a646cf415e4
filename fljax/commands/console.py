"""The console command: `fljax COMMAND ...`, and the scripts that are callers of one command."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import NamedTuple

import fljax
from fljax import commands


class Command(NamedTuple):
    """A command: its module, which has `define()` and `main(argv)`, and how it is told of.

    Attributes:
      module: Where its functions are; the module's docstring is its help page.
      help: One line.
      arguments: What may follow that is no flag, such as "DIR..."; nothing by default, but for the
        configuration of commands that have one.
    """

    module: str
    help: str
    arguments: str = ""


# by what people do first
COMMANDS = {
    "run": Command("fljax.commands.run", "Runs a federated simulation.", "CONFIG"),
    "sweep": Command("fljax.commands.sweep", "Runs trials that differ in axes.", "CONFIG"),
    "study": Command("fljax.commands.study", "Compares variants over seeds.", "CONFIG"),
    "partition": Command("fljax.commands.partition", "Looks at data and clients.", "[CONFIG]"),
    "audit": Command("fljax.commands.audit", "Attacks what a federation releases.", "[CONFIG]"),
    "analytics": Command("fljax.commands.analytics", "Asks clients for statistics.", "CONFIG"),
    "report": Command("fljax.commands.report", "Writes a page on runs or a study.", "DIR..."),
    "monitor": Command("fljax.commands.monitor", "Watches deployed models for drift.", "CONFIG"),
    "benchmark": Command("fljax.commands.benchmark", "Times the round program."),
}


def main() -> None:
    """Runs the command that the arguments of the process name, and exits."""
    commands.begin()
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in ("--help", "-h", "help"):
        commands.show(page())
        sys.exit(0)
    if name == "--version":
        commands.show(f"fljax {fljax.__version__}")
        sys.exit(0)
    if name not in COMMANDS:
        from fljax.core.names import unknown

        print(f"fljax: {unknown('command', name, COMMANDS)}", file=sys.stderr)
        sys.exit(1)
    _run(name, [sys.argv[0], *arguments])


def call(name: str) -> None:
    """Runs a command of the table on all arguments of the process, as scripts do, and exits."""
    commands.begin()
    _run(name, sys.argv)


def page() -> str:
    """Returns the help page of the console command."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {command.help}" for name, command in COMMANDS.items()]
    return "\n".join(
        ["usage: fljax COMMAND ...", "", *lines, "", "fljax COMMAND --help tells more."]
    )


def _run(name: str, argv: list[str]) -> None:
    command = COMMANDS[name]

    def prepare() -> list[str]:
        _module(command).define()
        return argv

    commands.execute(
        lambda given: _module(command).main(given),
        prepare=prepare,
        arguments="CONFIG" not in command.arguments and bool(command.arguments),
    )


def _module(command: Command) -> ModuleType:
    return import_module(command.module)
