"""Deploys models whose data drift, watches them, and trains again when a detector raises an alarm.

    fljax monitor drift_over_time
    fljax monitor mine.py --workdir=runs/drift

The config file names what all runs share, `get_config()`, and what is compared,
`get_deployments()`: streams, detectors, seeds, for how long clients train. Flags replace parts of
the latter:

    --seeds=3 --detector=none --detector="adwin(delta=0.01)" --detector="every(60)"

The workdir receives the records of each run, a table (deployments.json) and a picture of the
errors. The same command with the same `--workdir` goes on where it was stopped. Of the
configuration, what says when runs are evaluated, saved or ended has no effect. Detectors need the
extra `monitoring`.
"""

from __future__ import annotations

from absl import flags

import fljax
from fljax import commands
from fljax.config.command_line import config_file, config_given, define_config

_FLAGS = flags.FLAGS


def define() -> None:
    """Defines the flags of a monitor."""
    define_config()
    flags.DEFINE_string("workdir", None, "Directory for everything the runs leave behind.")
    flags.DEFINE_multi_string("detector", [], "What watches, or none; not the file's.")
    flags.DEFINE_integer("seeds", None, "Number of seeds, from 0.", lower_bound=1)
    flags.mark_flags_as_required(["config", "workdir"])


def main(argv: list[str]) -> int:
    """Deploys, watches and trains, and prints the table of what was found."""
    from fljax.studies import deployments

    fljax.use_all_cores()
    settings = deployments.load_deployments(config_file())
    if _FLAGS.detector:
        settings = settings._replace(detectors=tuple(_FLAGS.detector))
    if _FLAGS.seeds:
        settings = settings._replace(seeds=tuple(range(_FLAGS.seeds)))
    found = deployments.run_deployments(config_given(), settings, _FLAGS.workdir)
    commands.show(deployments.table_of(found))
    return 0
