"""Runs a study: named variants of one configuration, each with several seeds, compared.

    python scripts/study.py --config=configs/compression_tradeoff.py --workdir=runs/tradeoff

The config file names what all trials share, `get_config()`, and what is compared, `get_study()`;
flags replace parts of the latter:

    --seeds=5 --variant=none --variant="coarse: uplink=qsgd(2)"

The workdir receives a table (study.csv), a report (report.md, report.html) and pictures. The same
command goes on with a study that was stopped, and repeats no finished trial; with more variants or
seeds, it adds to the study. Several processes share one: see docs/studies.md.
"""

from fljax import commands  # isort: skip, it answers for what the others do

import sys

from absl import flags
from ml_collections import config_flags

import fljax
from fljax.config.command_line import config_of, define_config
from fljax.core import signals

_CONFIG = define_config()
_WORKDIR = flags.DEFINE_string("workdir", None, "Directory for everything the study leaves behind.")
_VARIANTS = flags.DEFINE_multi_string(
    "variant", [], "Name of a variant, or 'NAME: KEY=VALUE, ...'; instead of the file's."
)
_AXES = flags.DEFINE_multi_string("axis", [], "NAME=VALUE,VALUE,...; replaces the file's axes.")
_SEEDS = flags.DEFINE_integer("seeds", None, "Number of seeds, from 0.", lower_bound=1)
_TOGETHER = flags.DEFINE_integer("together", None, "Most trials side by side; 0: all that fit.")
_MEMORY_GB = flags.DEFINE_float("memory_gb", None, "Bound of the memory, in 10^9 bytes.")
_SHARE = flags.DEFINE_string("share", None, "RANK/COUNT of this process; by default as launched.")


def main(argv):
    from fljax import studies

    fljax.use_all_cores()
    path = config_flags.get_config_filename(flags.FLAGS["config"])
    settings = studies.load_study(path, needed=not (_VARIANTS.value or _AXES.value))
    if _VARIANTS.value:
        known = settings.get("variants", {})
        settings["variants"] = studies.parse_variants(_VARIANTS.value, known)
    if _AXES.value:
        settings["axes"] = studies.parse_axes(_AXES.value)
    if _SEEDS.value is not None:
        settings["seeds"] = tuple(range(_SEEDS.value))
    given = {"together": _TOGETHER.value, "memory_gb": _MEMORY_GB.value}
    settings |= {name: value for name, value in given.items() if value is not None}
    share = None if _SHARE.value is None else studies.parse_share(_SHARE.value)
    found = fljax.sweep(config_of(_CONFIG), _WORKDIR.value, resume=True, share=share, **settings)
    commands.show(studies.report(found, ["python", *sys.argv]))
    return 0 if found.summary["complete"] else signals.exit_code()


if __name__ == "__main__":
    commands.run(main, required=["config", "workdir"], overrides=True)
