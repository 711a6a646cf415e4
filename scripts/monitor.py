"""Deploys models whose data drift, watches them, and trains again when a detector raises an alarm.

    python scripts/monitor.py --config=configs/drift_over_time.py --workdir=runs/drift

The config file names what all runs share, `get_config()`, and what is compared,
`get_deployments()`: streams, detectors, seeds, for how long clients train. Flags replace parts of
the latter:

    --seeds=3 --detector=none --detector="adwin(delta=0.01)" --detector="every(60)"

The workdir receives the records of each run, a table (deployments.json) and a picture of the
errors. The same command goes on where it was stopped. Of the configuration, what says when runs are
evaluated, saved or ended has no effect. Detectors need the extra `monitoring`.
"""

from fljax import commands  # isort: skip, it answers for what the others do

from absl import flags

import fljax
from fljax.config.command_line import config_of, define_config

_CONFIG = define_config()
_WORKDIR = flags.DEFINE_string("workdir", None, "Directory for everything the runs leave behind.")
_DETECTORS = flags.DEFINE_multi_string("detector", [], "What watches, or none; not the file's.")
_SEEDS = flags.DEFINE_integer("seeds", None, "Number of seeds, from 0.", lower_bound=1)


def main(argv):
    from ml_collections import config_flags

    from fljax.studies import deployments

    fljax.use_all_cores()
    path = config_flags.get_config_filename(flags.FLAGS["config"])
    settings = deployments.load_deployments(path)
    if _DETECTORS.value:
        settings = settings._replace(detectors=tuple(_DETECTORS.value))
    if _SEEDS.value:
        settings = settings._replace(seeds=tuple(range(_SEEDS.value)))
    found = deployments.run_deployments(config_of(_CONFIG), settings, _WORKDIR.value)
    commands.show(deployments.table_of(found))
    return 0


if __name__ == "__main__":
    commands.run(main, required=["config", "workdir"], overrides=True)
