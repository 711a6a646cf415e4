"""Measures fljax on the accelerator of this machine, and writes report.md and JSON files.

    python scripts/gpu_report.py --workdir=runs/gpu
    python scripts/gpu_report.py --workdir=runs/gpu --runner fedjax='python my_fedjax_runner.py'
    python scripts/gpu_report.py --workdir=runs/gpu --sections=cifar10,cohorts
    python scripts/gpu_report.py --workdir=runs/try --size=small        # minutes on a CPU

Sections run in processes of their own, one after another; one that fails is reported, the others
go on, and the exit status is 1. Runners of other simulators are commands as in
`fljax/benchmarks/comparison.py`; without --runner, fljax alone is run. FLJAX_DATA_DIR names the
directory of CIFAR-10; without it, synthetic data of its shape are used, and the report says so.

A section is ended after --timeout seconds, with all that it has started; `peers` shows what had
been run by then, and goes on from there when it is run again. The section cifar10_cpu repeats the
first 150 of the 1,500 rounds of cifar10 on the CPU. To set the final accuracy beside that of a CPU,
give it all rounds, and time for them:

    python scripts/gpu_report.py --workdir=runs/gpu --sections=cifar10_cpu --cpu_rounds=1500 \
        --timeout=14400
"""

from fljax import commands  # isort: skip, it answers for what the others do

import sys
from dataclasses import replace
from pathlib import Path

from absl import app, flags

import fljax
from fljax.benchmarks import comparison
from fljax.benchmarks.gpu import report
from fljax.benchmarks.gpu.records import SIZES, Context

_WORKDIR = flags.DEFINE_string("workdir", None, "Directory for the report.", required=True)
_SIZE = flags.DEFINE_enum("size", "full", list(SIZES), "How much is measured.")
_SECTIONS = flags.DEFINE_list("sections", list(report.SECTIONS), "Sections that are run.")
_RUNNER = flags.DEFINE_multi_string("runner", [], "NAME=COMMAND: a runner; can be repeated.")
_CPU_ROUNDS = flags.DEFINE_integer("cpu_rounds", None, "Rounds of the section cifar10_cpu.")
_CALIBRATE = flags.DEFINE_bool("calibrate", True, "Searches for layouts first.")
_TIMEOUT = flags.DEFINE_float("timeout", 600, "Seconds after which a section is ended.")
_ONE = flags.DEFINE_string("one", None, "Runs a single section in this process.")


def main(argv):
    workdir = Path(_WORKDIR.value).resolve()
    workdir.mkdir(parents=True, exist_ok=True)
    if _ONE.value:
        fljax.use_all_cores()
        fljax.use_compilation_cache()
        report.write(workdir, _ONE.value, report.run_section(_ONE.value, _context(workdir)))
        return 0
    unknown = [name for name in _SECTIONS.value if name not in report.SECTIONS]
    if unknown:
        raise app.UsageError(f"Unknown {unknown[0]!r}; there are {', '.join(report.SECTIONS)}.")
    own = [f"--workdir={workdir}", f"--size={_SIZE.value}"]
    own += [f"--runner={runner}" for runner in _RUNNER.value]
    own += [f"--timeout={_TIMEOUT.value}"]
    own += [f"--calibrate={_CALIBRATE.value}"]
    own += [f"--cpu_rounds={_CPU_ROUNDS.value}"] if _CPU_ROUNDS.value else []
    command = [sys.executable, __file__, *own, "--one"]
    good = report.run_sections(_SECTIONS.value, command, workdir, timeout=_TIMEOUT.value)
    commands.show((workdir / report.REPORT).read_text())
    return int(not good)


def _context(workdir):
    size = SIZES[_SIZE.value]
    rounds = _CPU_ROUNDS.value or size.cpu_rounds
    size = replace(size, cpu_rounds=rounds, calibrate=_CALIBRATE.value)
    script = Path(__file__).with_name("run_workload.py")
    runners = {comparison.OURS: comparison.Runner([sys.executable, str(script)], script.parents[1])}
    for runner in _RUNNER.value:
        name, _, command = runner.partition("=")
        runners[name] = comparison.runner(command)
    return Context(size, workdir, runners, _TIMEOUT.value)


if __name__ == "__main__":
    commands.run(main, starts_processes=True)
