"""Runs a study: named variants of one configuration, each with several seeds, compared.

    fljax study compression_tradeoff
    fljax study mine.py --workdir=runs/tradeoff

The config file names what all trials share, `get_config()`, and what is compared, `get_study()`;
flags replace parts of the latter:

    --seeds=5 --variant=none --variant="coarse: uplink=qsgd(2)"

The workdir receives a table (study.csv), a report (report.md, report.html) and pictures. The same
command with the same `--workdir` goes on with a study that was stopped, and repeats no finished
trial; with more variants or seeds, it adds to the study. Several processes share one: see
docs/studies.md. `fljax sweep` is the same engine, for axes alone.
"""

from __future__ import annotations

from absl import flags

from fljax.commands import studies


def define() -> None:
    """Defines the flags of a study."""
    studies.define()
    flags.DEFINE_multi_string(
        "variant", [], "Name of a variant, or 'NAME: KEY=VALUE, ...'; instead of the file's."
    )


def main(argv: list[str]) -> int:
    """Runs the study, and prints what was found."""
    return studies.run(resume=True, variants=flags.FLAGS.variant)
