"""Measures fljax on the accelerator of this machine, and writes report.md and JSON files.

    python scripts/gpu_report.py --workdir=runs/gpu                      # ten minutes
    python scripts/gpu_report.py --workdir=runs/gpu --minutes=5 --sections=softmax,cifar10
    python scripts/gpu_report.py --workdir=runs/gpu --runner fedjax='python my_fedjax_runner.py'
    python scripts/gpu_report.py --workdir=runs/try --size=small        # minutes on a CPU

Sections run in processes of their own, what matters first; each has its share of the minutes, and
those for which no time is left are not run. What a section has found by the time it fails or is
ended is in the report; the exit status is then 1. Where PyTorch is (in this environment, or that of
--torch_python), two loops in it are run beside fljax; other simulators are commands as in
`fljax/benchmarks/comparison.py`. FLJAX_DATA_DIR names the directory of CIFAR-10; without it,
synthetic data of its shape are used, and the report says so.

The section cifar10_cpu repeats the first 150 of the 1,500 rounds of cifar10 on the CPU. To set the
final accuracy beside that of a CPU, give it all rounds, and time for them:

    python scripts/gpu_report.py --workdir=runs/gpu --sections=cifar10_cpu --cpu_rounds=1500 \
        --minutes=240
"""

from fljax import commands

commands.begin()  # it answers for what the imports below do

import functools
import importlib.util
import math
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
_MINUTES = flags.DEFINE_float("minutes", 10, "Time for all sections.", lower_bound=0.01)
_TORCH = flags.DEFINE_string("torch_python", None, "The Python of an environment with PyTorch.")
_ONE = flags.DEFINE_string("one", None, "Runs a single section in this process.")
_SECONDS = flags.DEFINE_float("seconds", None, "Time for that section.")


def main(argv):
    workdir = Path(_WORKDIR.value).resolve()
    workdir.mkdir(parents=True, exist_ok=True)
    if _ONE.value:
        fljax.use_all_cores()
        fljax.use_compilation_cache()
        write = functools.partial(report.write, workdir, _ONE.value)
        write(report.run_section(_ONE.value, _context(workdir), write))
        return 0
    unknown = [name for name in _SECTIONS.value if name not in report.SECTIONS]
    if unknown:
        raise app.UsageError(f"Unknown {unknown[0]!r}; there are {', '.join(report.SECTIONS)}.")
    own = [f"--workdir={workdir}", f"--size={_SIZE.value}"]
    own += [f"--runner={runner}" for runner in _RUNNER.value]
    own += [f"--torch_python={_TORCH.value}"] if _TORCH.value else []
    own += [f"--calibrate={_CALIBRATE.value}"]
    own += [f"--cpu_rounds={_CPU_ROUNDS.value}"] if _CPU_ROUNDS.value else []
    command = [sys.executable, __file__, *own]
    good = report.run_sections(_SECTIONS.value, command, workdir, seconds=60 * _MINUTES.value)
    commands.show((workdir / report.REPORT).read_text())
    return int(not good)


def _context(workdir):
    size = SIZES[_SIZE.value]
    rounds = _CPU_ROUNDS.value or size.cpu_rounds
    size = replace(size, cpu_rounds=rounds, calibrate=_CALIBRATE.value)
    is_cold = not report.was_run(workdir, _ONE.value)
    return Context(size, workdir, _runners(), _SECONDS.value or math.inf, is_cold)


def _runners():
    """Returns fljax's runner, PyTorch's where it is there, and those of --runner."""
    scripts = Path(__file__).parent
    runner = lambda *command: comparison.Runner(command, scripts.parent)  # noqa: E731
    found = {comparison.OURS: runner(sys.executable, str(scripts / "run_workload.py"))}
    python = _TORCH.value or (importlib.util.find_spec("torch") and sys.executable)
    if python:
        loop = str(scripts / "run_torch_workload.py")
        found["PyTorch"] = runner(python, loop)
        found["PyTorch, vmap"] = runner(python, loop, "--vmap")
    for text in _RUNNER.value:
        name, _, command = text.partition("=")
        found[name] = comparison.runner(command)
    return found


if __name__ == "__main__":
    commands.execute(main, starts_processes=True)
