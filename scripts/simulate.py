"""Runs a federated simulation from a configuration file.

    python scripts/simulate.py --config=configs/quickstart.py --workdir=runs/first \
        --config.num_rounds=50

`--dry_run` prints what the run would do and cost, `--privacy` what it would spend of privacy; both
run no round. `--resume` goes on from the newest checkpoint of the workdir, and starts where there
is none, so that a line with it can be repeated. `--profile=DIR` leaves a trace of the run for XProf
or Perfetto. `--export=FILE` writes the trained weights for other runs (`init_from`) and frameworks.

Several processes, on one host or many, make one run: `--distributed` where a launcher such as
Slurm's `srun` starts them, else `--coordinator_address`, `--num_processes` and `--process_id`; see
docs/many_hosts.md.
"""

from fljax import commands  # isort: skip, it answers for what the others do

from pathlib import Path

from absl import app, flags

import fljax
from fljax.config.command_line import config_of, define_config
from fljax.core import signals

_CONFIG = define_config()
_WORKDIR = flags.DEFINE_string("workdir", None, "Directory for everything the run leaves behind.")
_RESUME = flags.DEFINE_bool(
    "resume", False, "Go on from the newest checkpoint of the workdir; start where there is none."
)
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Print clients, steps, FLOPs, memory; run no round.")
_PRIVACY = flags.DEFINE_bool(
    "privacy", False, "Print sampling, noise, epsilon and what it covers; run no round."
)
_PROFILE = flags.DEFINE_string("profile", None, "Directory for a profiler trace of the run.")
_EXPORT = flags.DEFINE_string(
    "export", None, "File for the trained weights, the best by validation if any: safetensors."
)
_DISTRIBUTED = flags.DEFINE_bool("distributed", False, "Join the processes of a launcher's job.")
_COORDINATOR = flags.DEFINE_string("coordinator_address", None, "host:port of process 0.")
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "Number of processes of the run.")
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "Number of this process, from 0.")


def main(argv):
    if _WORKDIR.value is None and not (_DRY_RUN.value or _PRIVACY.value):
        raise app.UsageError("--workdir is needed: a directory for what the run leaves behind.")
    from fljax.config import experiment
    from fljax.core.files import check_kind

    if _EXPORT.value is not None:
        check_kind(Path(_EXPORT.value))
    process = (_COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value)
    if _DISTRIBUTED.value or process != (None, None, None):
        fljax.initialize_distributed(*process)
    fljax.use_all_cores()
    if _DRY_RUN.value:
        commands.show(experiment.dry_run(config_of(_CONFIG)))
        return 0
    if _PRIVACY.value:
        commands.show(experiment.privacy_report(config_of(_CONFIG)))
        return 0
    run, plots = experiment.run_config(
        config_of(_CONFIG), _WORKDIR.value, resume=_RESUME.value, profile=_PROFILE.value
    )
    if run.directory is not None:
        commands.show(experiment.report(run, plots))
        if _EXPORT.value is not None and not run.interrupted:
            which = "final" if run.best_variables is None else "best"
            commands.show(f"{which} weights: {run.export(_EXPORT.value, which)}")
    return signals.exit_code() if run.interrupted else 0


if __name__ == "__main__":
    commands.run(main, required=["config"], overrides=True)
