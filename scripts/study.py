"""Runs a study: named variants of one configuration, each with several seeds, compared.

    python scripts/study.py --config=configs/compression_tradeoff.py --workdir=runs/tradeoff

The config file names what all trials share, `get_config()`, and what is compared, `get_study()`;
flags replace parts of the latter:

    --seeds=5 --variant=none --variant="coarse: uplink=qsgd(2)"

The workdir receives a table (study.csv), a report (report.md, report.html) and pictures. The same
command goes on with a study that was stopped, and repeats no finished trial; with more variants or
seeds, it adds to the study. Several processes share one: see docs/studies.md. `scripts/sweep.py` is
the same engine, for axes alone.
"""

from fljax import commands  # isort: skip, it answers for what the others do

from absl import flags

from fljax.commands import studies

_CONFIG = studies.define()
_VARIANTS = flags.DEFINE_multi_string(
    "variant", [], "Name of a variant, or 'NAME: KEY=VALUE, ...'; instead of the file's."
)


def main(argv):
    return studies.run(_CONFIG, resume=True, variants=_VARIANTS.value)


if __name__ == "__main__":
    commands.run(main, required=["config", "workdir"], overrides=True)
