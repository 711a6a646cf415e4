"""Times the round program on named workloads, each in a process of its own.

fljax benchmark                       # all workloads
fljax benchmark --workloads=softmax_1000,emnist_cnn_100 --rounds=5 --out=now.json
fljax benchmark --sweep=cohort        # or population, devices, model_size
fljax benchmark --compare=before.json,after.json
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from absl import flags

import fljax
from fljax import commands
from fljax.commands.tables import names_in
from fljax.core import signals
from fljax.core.files import atomic_file

_FLAGS = flags.FLAGS
_FILE = "benchmarks/workloads.py"


def define() -> None:
    """Defines the flags of benchmarks."""
    workloads, sweeps = (names_in(_FILE, table) for table in ("WORKLOADS", "SWEEPS"))
    flags.DEFINE_list("workloads", list(workloads), "Names of workloads.")
    flags.DEFINE_enum("sweep", None, list(sweeps), "Runs the workloads of a sweep instead.")
    flags.DEFINE_integer("rounds", 5, "Timed rounds, after one first round.", lower_bound=1)
    flags.DEFINE_integer("seed", 0, "Seed of data and run.")
    flags.DEFINE_integer("lanes", 0, "Lanes of a device; 0 chooses.")
    flags.DEFINE_integer(
        "rounds_per_dispatch",
        0,
        "Rounds of one dispatch; they divide --rounds. 0 chooses.",
        lower_bound=0,
    )
    flags.DEFINE_string("out", None, "JSON file for the results.")
    flags.DEFINE_list("compare", None, "Two JSON files: prints the ratios, runs nothing.")
    flags.DEFINE_string("one", None, "Runs a single workload here and prints its JSON line.")


def main(argv: list[str]) -> int:
    """Runs the workloads, and prints the table of their times."""
    from fljax.benchmarks import workload_table
    from fljax.benchmarks.workloads import SWEEPS, find

    signals.install(signals.unwind)  # a stopped benchmark ends the processes that it started
    if _FLAGS.compare:
        commands.show(workload_table.compare(*_FLAGS.compare))
        return 0
    if _FLAGS.one:
        commands.show(json.dumps(_here(_FLAGS.one)))
        return 0
    names = list(SWEEPS[_FLAGS.sweep]) if _FLAGS.sweep else _FLAGS.workloads
    workloads = {name: find(name) for name in names}
    results = [_in_a_process(name, workload.title) for name, workload in workloads.items()]
    if _FLAGS.out:
        with atomic_file(Path(_FLAGS.out)) as file:
            file.write(json.dumps(results, indent=2).encode() + b"\n")
    commands.show(workload_table.table(results))
    return int(any("error" in result for result in results))


def _here(name: str) -> dict[str, Any]:
    """Runs a workload in this process; returns its figures."""
    from fljax.benchmarks import machine, measure, workloads

    fljax.use_all_cores()
    fljax.use_compilation_cache()
    result = measure.run(
        name,
        workloads.find(name),
        rounds=_FLAGS.rounds,
        seed=_FLAGS.seed,
        lanes=_FLAGS.lanes,
        rounds_per_dispatch=_FLAGS.rounds_per_dispatch,
    )
    # measured last, so that its operands are not in the workload's peak memory
    return measure.with_share_of_peak(result, machine.matrix_peak())


def _in_a_process(name: str, title: str) -> dict[str, Any]:
    """Runs a workload alone, so that its memory and first round are its own."""
    own = [f"--one={name}", f"--rounds={_FLAGS.rounds}", f"--seed={_FLAGS.seed}"]
    own += [f"--lanes={_FLAGS.lanes}", f"--rounds_per_dispatch={_FLAGS.rounds_per_dispatch}"]
    command = [sys.executable, "-m", "fljax", "benchmark", *own]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode == 0:
        return json.loads(done.stdout.splitlines()[-1])
    commands.note(done.stderr)
    error = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
    return {"workload": name, "title": title, "error": error}
