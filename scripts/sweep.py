"""Runs a hyperparameter sweep: trials that share shapes train side by side in one program.

    python scripts/sweep.py --config=configs/sweep_seeds.py --workdir=runs/seeds

The config file names what all trials share, `get_config()`, and what they differ in, `get_sweep()`;
flags replace parts of the latter:

    --axis=client_lr=0.01,0.1,1 --axis=server_lr=0.5,1 --seeds=3

`--resume` goes on with the sweep of the workdir and repeats no finished trial. Several processes
share a sweep by rank and count: `--share=0/8`, or from their environment (a Slurm array, a
Kubernetes indexed Job, FLJAX_SWEEP_RANK and FLJAX_SWEEP_COUNT, ...); see docs/studies.md.
"""

from fljax import commands  # isort: skip, it answers for what the others do

import sys

from absl import flags
from ml_collections import config_flags

import fljax
from fljax.config.command_line import config_of, define_config
from fljax.core import signals

_CONFIG = define_config()
_WORKDIR = flags.DEFINE_string("workdir", None, "Directory for everything the sweep leaves behind.")
_RESUME = flags.DEFINE_bool("resume", False, "Go on with the sweep of the workdir.")
_AXES = flags.DEFINE_multi_string("axis", [], "NAME=VALUE,VALUE,...; replaces the file's axes.")
_SEEDS = flags.DEFINE_integer("seeds", None, "Number of seeds, from 0.", lower_bound=1)
_TOGETHER = flags.DEFINE_integer("together", None, "Most trials side by side; 0: all that fit.")
_MEMORY_GB = flags.DEFINE_float("memory_gb", None, "Bound of the memory, in 10^9 bytes.")
_SHARE = flags.DEFINE_string("share", None, "RANK/COUNT of this process; by default as launched.")


def main(argv):
    from fljax import studies

    fljax.use_all_cores()
    path = config_flags.get_config_filename(flags.FLAGS["config"])
    given = {"together": _TOGETHER.value, "memory_gb": _MEMORY_GB.value}
    settings = studies.load_study(path, needed=not _AXES.value)
    settings |= {name: value for name, value in given.items() if value is not None}
    if _AXES.value:
        settings["axes"] = studies.parse_axes(_AXES.value)
    if _SEEDS.value is not None:
        settings["seeds"] = tuple(range(_SEEDS.value))
    share = None if _SHARE.value is None else studies.parse_share(_SHARE.value)
    found = fljax.sweep(
        config_of(_CONFIG), _WORKDIR.value, resume=_RESUME.value, share=share, **settings
    )
    commands.show(studies.report(found, ["python", *sys.argv]))
    return 0 if found.summary["complete"] else signals.exit_code()


if __name__ == "__main__":
    commands.run(main, required=["config", "workdir"], overrides=True)
