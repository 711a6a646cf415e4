"""Writes a page on a run, on several runs beside each other, or on a study.

    fljax report runs/first
    fljax report runs/first runs/second --out=comparison.html
    fljax report runs

The page is one file of HTML that needs no other one: figures, curves that can be hidden, asked and
looked at closer, single clients, the partition, bytes, privacy, simulated time, settings and where
they differ, the environment, and a card of the model. Runs that differ in their seed alone are
shown as mean and standard deviation. A directory of many runs stands for all of them. It is written
into the directory, or into the one that holds all of them, as report.html.

To show which labels clients hold, the data are loaded again; `--nopartition` leaves that out.
"""

from __future__ import annotations

from absl import app, flags

from fljax import commands

_FLAGS = flags.FLAGS


def define() -> None:
    """Defines the flags of a report."""
    flags.DEFINE_string("out", None, "The file; report.html in the directory if it is not given.")
    flags.DEFINE_bool("partition", True, "Load the data again, to show who holds which labels.")


def main(argv: list[str]) -> int:
    """Writes the page, and prints where it lies."""
    if len(argv) < 2:
        raise app.UsageError("Name at least one directory, such as runs/first.")
    from fljax.reports import write_report

    path = write_report(argv[1:], _FLAGS.out, partition=_FLAGS.partition)
    commands.show(f"report: {path}")
    return 0
