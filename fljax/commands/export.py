"""Exports a run, for others to run.

    fljax export flower runs/first flower_app
    fljax export flower runs/first flower_app --data=files --start=final

`flower` writes a Flower app with the run's model, local training, aggregation and codec of
messages, whose clients are machines of their own; see docs/deployment.md. With --data=files the
rows of each client are written to a file, for its node; else nodes load the run's data by their
name. Training starts from the run's initial model, unless --start says final or best.
"""

from __future__ import annotations

from absl import app, flags

from fljax import commands

_FLAGS = flags.FLAGS


def define() -> None:
    """Defines the flags of exports."""
    flags.DEFINE_enum("data", "source", ["source", "files"], "Where nodes of an app find rows.")
    flags.DEFINE_enum(
        "start", "initial", ["initial", "final", "best"], "Model of an app's first round."
    )


def main(argv: list[str]) -> int:
    """Exports what the arguments name: KIND RUN OUT."""
    if len(argv) != 4 or argv[1] not in _KINDS:
        raise app.UsageError(f"Write fljax export KIND RUN OUT; kinds are {', '.join(_KINDS)}.")
    _, kind, run, out = argv
    return _KINDS[kind](run, out)


def _flower(run: str, out: str) -> int:
    """Writes a Flower app, and prints where it lies."""
    from fljax.export.flower.app import write_app

    path = write_app(run, out, data=_FLAGS.data, start=_FLAGS.start)
    commands.show(f"Flower app: {path}\nhow it is run: {path / 'README.md'}")
    return 0


_KINDS = {"flower": _flower}
