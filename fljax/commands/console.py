"""The console command, `fljax COMMAND ...`, with the table of commands.

Scripts are callers of one command. What a command needs is imported when it runs, so that help and
completion come at once.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import fljax
from fljax import commands
from fljax.core.files import listening


class Command(NamedTuple):
    """A command: its module, which has `define()` and `main(argv)`, and how it is told of.

    Attributes:
      module: Where its functions are. `define` defines its flags, `main` runs it, on the program's
        name and the arguments that are no flags, and returns the exit code. The docstring is the
        help page.
      help: One line.
      arguments: What follows that is no flag, such as "DIR..." or "flower|model RUN OUT". CONFIG
        becomes the flag `--config`, and main does not see it.
    """

    module: str
    help: str
    arguments: str = ""


# in the order of a project
COMMANDS = {
    "run": Command("fljax.commands.run", "Runs a federated simulation.", "CONFIG"),
    "study": Command("fljax.commands.study", "Compares variants over seeds.", "CONFIG"),
    "sweep": Command("fljax.commands.sweep", "Runs trials that differ in axes.", "CONFIG"),
    "report": Command("fljax.commands.report", "Writes a page on runs or a study.", "DIR..."),
    "partition": Command("fljax.commands.partition", "Looks at data and clients.", "[CONFIG]"),
    "audit": Command("fljax.commands.audit", "Attacks what a federation releases.", "[CONFIG]"),
    "analytics": Command("fljax.commands.analytics", "Asks clients for statistics.", "CONFIG"),
    "export": Command(
        "fljax.commands.export", "Exports a model, or an app.", "model|flower RUN OUT"
    ),
    "monitor": Command("fljax.commands.monitor", "Watches deployed models for drift.", "CONFIG"),
    "benchmark": Command("fljax.commands.benchmark", "Times the round program."),
    "configs": Command("fljax.commands.configs", "Lists configs of ours, or prints one.", "[NAME]"),
    "doctor": Command("fljax.commands.doctor", "Looks at this installation."),
    "completion": Command(
        "fljax.commands.completion", "Prints the completion of a shell.", "bash|zsh|fish"
    ),
}


def main() -> None:
    """Runs the command that the arguments of the process name, and exits."""
    commands.begin()
    name, *arguments = sys.argv[1:] or ["--help"]
    if name == "help":
        name, arguments = (arguments[0], ["--help"]) if arguments else ("--help", [])
    if name in ("--help", "-h", "-help"):
        from fljax.commands import pages

        commands.show(pages.of_console(COMMANDS))
        commands.leave(0)
    if name == "--version":
        commands.show(f"fljax {fljax.__version__}")
        commands.leave(0)
    if name == "__complete":  # what scripts of completion call; see fljax.commands.completion
        from fljax.commands import candidates

        commands.show("\n".join(candidates.lines(arguments)))
        commands.leave(0)
    if name not in COMMANDS:
        from fljax.core.names import unknown

        commands.leave(f"fljax: {unknown('command', name, COMMANDS)}. `fljax --help` tells more.")
    _run(name, lambda: _prepared(name, [sys.argv[0], *arguments]))


def call(name: str) -> None:
    """Runs a command of the table on all arguments of the process, as scripts do, and exits."""
    commands.begin()

    def prepare() -> list[str]:
        import_module(COMMANDS[name].module).define()
        return sys.argv

    _run(name, prepare)


def _run(name: str, prepare: Callable[[], list[str]]) -> None:
    def run(argv: Sequence[str]) -> Any:
        from absl import flags

        workdir = flags.FLAGS["workdir"] if "workdir" in flags.FLAGS else None
        if workdir is not None and workdir.using_default_value and workdir.value is not None:
            with _told_of(Path(workdir.value)):
                return import_module(COMMANDS[name].module).main(argv)
        return import_module(COMMANDS[name].module).main(argv)

    takes_some = COMMANDS[name].arguments not in ("", "CONFIG", "[CONFIG]")
    commands.execute(run, prepare=prepare, arguments=takes_some)


@contextlib.contextmanager
def _told_of(workdir: Path) -> Iterator[None]:
    """Tells where a command leaves what it finds, as soon as that is there."""
    waiting = [f"workdir: {workdir}"]

    def tell() -> None:
        if waiting and workdir.exists():
            commands.note(waiting.pop())

    with listening(tell):
        try:
            yield
        finally:
            tell()


def _prepared(name: str, argv: list[str]) -> list[str]:
    """Defines the flags of a command; returns arguments in which flags say all that it needs."""
    from absl import flags

    command = COMMANDS[name]
    module = import_module(command.module)
    module.define()
    if {"--help", "-h", "-help"} & {*argv}:
        from fljax.commands import pages

        commands.show(pages.of_command(name, command, module))
        commands.leave(0)
    from fljax.commands import arguments

    if "config" in flags.FLAGS:
        argv = arguments.with_config(argv)
        named = any(argument.startswith(("--config=", "--config_help")) for argument in argv)
        if command.arguments == "CONFIG" and not named:
            commands.leave(
                f"fljax {name} needs a configuration: a file of yours, or one of ours by name. "
                "`fljax configs` lists these."
            )
    if "workdir" in flags.FLAGS and arguments.needs_a_place(argv):
        flags.FLAGS.set_default("workdir", arguments.place(name, argv))
    return argv
