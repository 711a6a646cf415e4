"""Takes a run into the world outside: an app that devices train.

    fljax export flower runs/first flower_app
    fljax export flower runs/first flower_app --data=files --start=final

`flower` writes a Flower app with the run's model, local training, aggregation and codec of messages
(docs/deployment.md). `--data=files` writes the rows of each client to a file of its own, for its
node; else nodes load the run's data by their name. It starts from the run's initial model, unless
`--start` says `final` or `best`.
"""

from __future__ import annotations

from importlib import import_module

from absl import app

from fljax import commands

# {what is written: the module with its `define()` and `main(run, out) -> text`}
KINDS = {"flower": "fljax.export.flower.command"}


def define() -> None:
    """Defines the flags of all kinds."""
    for module in KINDS.values():
        import_module(module).define()


def main(argv: list[str]) -> int:
    """Writes what is asked for, and prints where it lies."""
    if len(argv) != 4 or argv[1] not in KINDS:
        raise app.UsageError(
            f"Say what to export, a run and where to: fljax export {'|'.join(KINDS)} RUN OUT."
        )
    commands.show(import_module(KINDS[argv[1]]).main(*argv[2:]))
    return 0
