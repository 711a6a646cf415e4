r"""Runs a federated simulation from a configuration.

    fljax run quickstart
    fljax run mine.py --workdir=runs/first --config.num_rounds=50

`--dry_run` prints what the run would do and cost, `--privacy` what it would spend of privacy; both
run no round. `--resume` goes on from the newest checkpoint of the workdir, and starts where there
is none, so that a line with it can be repeated. `--profile=DIR` leaves a trace of the run for XProf
or Perfetto. `--export=FILE` writes the trained weights for other runs (`init_from`) and frameworks.

Several processes, on one host or many, make one run: `--distributed` where a launcher such as
Slurm's `srun` starts them, else `--coordinator_address`, `--num_processes` and `--process_id`; see
docs/many_hosts.md.
"""

from __future__ import annotations

from pathlib import Path

from absl import app, flags

import fljax
from fljax import commands
from fljax.config.command_line import config_given, define_config
from fljax.core import signals

_FLAGS = flags.FLAGS


def define() -> None:
    """Defines the flags of a run."""
    define_config()
    flags.DEFINE_string("workdir", None, "Directory for everything the run leaves behind.")
    flags.DEFINE_bool(
        "resume",
        False,
        "Go on from the newest checkpoint of the workdir; start where there is none.",
    )
    flags.DEFINE_bool("dry_run", False, "Print clients, steps, FLOPs, memory; run no round.")
    flags.DEFINE_bool(
        "privacy", False, "Print sampling, noise, epsilon and what it covers; run no round."
    )
    flags.DEFINE_string("profile", None, "Directory for a profiler trace of the run.")
    flags.DEFINE_string(
        "export", None, "File for the trained weights, the best by validation if any: safetensors."
    )
    flags.DEFINE_bool("report", True, "Write the page of the run, report.html, when it has ended.")
    flags.DEFINE_bool("distributed", False, "Join the processes of a launcher's job.")
    flags.DEFINE_string("coordinator_address", None, "host:port of process 0.")
    flags.DEFINE_integer("num_processes", None, "Number of processes of the run.")
    flags.DEFINE_integer("process_id", None, "Number of this process, from 0.")
    flags.mark_flag_as_required("config")


def main(argv: list[str]) -> int:
    """Runs the simulation, and prints what came of it."""
    if _FLAGS.workdir is None and not (_FLAGS.dry_run or _FLAGS.privacy):
        raise app.UsageError("--workdir is needed: a directory for what the run leaves behind.")
    from fljax.config import experiment
    from fljax.core.files import check_kind

    if _FLAGS.export is not None:
        check_kind(Path(_FLAGS.export))
    process = (_FLAGS.coordinator_address, _FLAGS.num_processes, _FLAGS.process_id)
    if _FLAGS.distributed or process != (None, None, None):
        fljax.initialize_distributed(*process)
    fljax.use_all_cores()
    if _FLAGS.dry_run:
        commands.show(experiment.dry_run(config_given()))
        return 0
    if _FLAGS.privacy:
        commands.show(experiment.privacy_report(config_given()))
        return 0
    from fljax.reports.report import REPORT, write_report

    if _FLAGS.report:  # a run is not to fail over its page when it has ended
        check_kind(Path(_FLAGS.workdir, REPORT))
    run, plots = experiment.run_config(
        config_given(), _FLAGS.workdir, resume=_FLAGS.resume, profile=_FLAGS.profile
    )
    if run.directory is not None:
        commands.show(experiment.report(run, plots))
        if _FLAGS.export is not None and not run.interrupted:
            which = "final" if run.best_variables is None else "best"
            commands.show(f"{which} weights: {run.export(_FLAGS.export, which)}")
        if _FLAGS.report and not run.interrupted:
            # loading the data again may take longer than the run
            commands.show(f"report: {write_report(run.directory, partition=False)}")
    return signals.exit_code() if run.interrupted else 0
