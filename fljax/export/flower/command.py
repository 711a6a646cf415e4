"""Defines the flags of `fljax export flower`, and runs it."""

from __future__ import annotations

from absl import flags

from fljax.export.flower.app import DATA, START, write_app

_FLAGS = flags.FLAGS


def define() -> None:
    """Defines the flags of Flower apps."""
    flags.DEFINE_enum("data", "source", DATA, "Of an app: nodes load the source, or own files.")
    flags.DEFINE_enum("start", "initial", START, "Of an app: the model of its first round.")


def main(run: str, out: str) -> str:
    """Writes the app of a run into a new folder; returns what to say of it."""
    path = write_app(run, out, data=_FLAGS.data, start=_FLAGS.start)
    return f"Flower app: {path}\nhow it is run: {path / 'README.md'}"
