"""Runs a ladder of compressors on one task and sets accuracy against bytes.

    python scripts/tradeoff.py --config=configs/compression_tradeoff.py --workdir=runs/tradeoff

The config file names the ladder, `--rung=none --rung=int8 ...` another one. The workdir receives
the runs, tradeoff.csv, tradeoff.png and report.md. A second call with the same workdir repeats no
finished run; so a study that was stopped goes on, and a longer ladder adds to it.
"""

from fljax import commands  # isort: skip, it answers for what the others do

import sys

from absl import flags
from ml_collections import config_flags

import fljax
from fljax.config.command_line import define_config
from fljax.core import signals

_CONFIG = define_config()
_WORKDIR = flags.DEFINE_string("workdir", None, "Directory for everything the study leaves behind.")
_RUNGS = flags.DEFINE_multi_string(
    "rung", [], "A rung, such as 'top_k(0.01) + error_feedback'; instead of the config file's."
)
_SEEDS = flags.DEFINE_integer("seeds", 3, "Number of seeds, from 0.", lower_bound=1)


def main(argv):
    from fljax import studies

    fljax.use_all_cores()
    path = config_flags.get_config_filename(flags.FLAGS["config"])
    try:
        found = studies.tradeoff(
            _CONFIG.value,
            _RUNGS.value or studies.load_ladder(path),
            range(_SEEDS.value),
            _WORKDIR.value,
            command=["python", *sys.argv],
        )
    except KeyboardInterrupt:
        commands.show("Stopped; what is done is saved. The same command goes on.")
        return signals.exit_code()
    commands.show(found.report.read_text())
    commands.show(f"report: {found.report}\ntable: {found.csv}\nplot: {found.picture}")
    return 0


if __name__ == "__main__":
    commands.run(main, required=["config", "workdir"], overrides=True)
