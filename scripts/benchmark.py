"""Times the round program on named workloads, each in a process of its own.

python scripts/benchmark.py                       # all workloads
python scripts/benchmark.py --workloads=softmax_1000,emnist_cnn_100 --rounds=5 --out=now.json
python scripts/benchmark.py --sweep=cohort        # or population, devices, model_size
python scripts/benchmark.py --compare=before.json,after.json
"""

from fljax import commands  # isort: skip, it answers for what the others do

import json
import subprocess
import sys
from pathlib import Path

from absl import flags

import fljax
from fljax.benchmarks import machine, measure, workload_table
from fljax.benchmarks.workloads import SWEEPS, WORKLOADS, find
from fljax.core.files import atomic_file
from fljax.recording import say

_WORKLOADS = flags.DEFINE_list("workloads", list(WORKLOADS), "Names of workloads.")
_SWEEP = flags.DEFINE_enum("sweep", None, list(SWEEPS), "Runs the workloads of a sweep instead.")
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Timed rounds, after one first round.", lower_bound=1)
_SEED = flags.DEFINE_integer("seed", 0, "Seed of data and run.")
_LANES = flags.DEFINE_integer("lanes", 0, "Lanes of a device; 0 chooses.")
_TOGETHER = flags.DEFINE_integer(
    "rounds_per_dispatch",
    0,
    "Rounds of one dispatch; they divide --rounds. 0 chooses.",
    lower_bound=0,
)
_OUT = flags.DEFINE_string("out", None, "JSON file for the results.")
_COMPARE = flags.DEFINE_list("compare", None, "Two JSON files: prints the ratios, runs nothing.")
_ONE = flags.DEFINE_string("one", None, "Runs a single workload here and prints its JSON line.")


def main(argv):
    if _COMPARE.value:
        commands.show(workload_table.compare(*_COMPARE.value))
        return 0
    if _ONE.value:
        commands.show(json.dumps(_here(_ONE.value)))
        return 0
    names = list(SWEEPS[_SWEEP.value]) if _SWEEP.value else _WORKLOADS.value
    workloads = {name: find(name) for name in names}
    results = [_in_a_process(name, workload.title) for name, workload in workloads.items()]
    if _OUT.value:
        with atomic_file(Path(_OUT.value)) as file:
            file.write(json.dumps(results, indent=2).encode() + b"\n")
    commands.show(workload_table.table(results))
    return int(any("error" in result for result in results))


def _here(name):
    fljax.use_all_cores()
    fljax.use_compilation_cache()
    result = measure.run(
        name,
        find(name),
        rounds=_ROUNDS.value,
        seed=_SEED.value,
        lanes=_LANES.value,
        rounds_per_dispatch=_TOGETHER.value,
    )
    # measured last, so that its operands are not in the workload's peak memory
    return measure.with_share_of_peak(result, machine.matrix_peak())


def _in_a_process(name, title):
    """Runs a workload alone, so that its memory and first round are its own."""
    own = [f"--one={name}", f"--rounds={_ROUNDS.value}", f"--seed={_SEED.value}"]
    own += [f"--lanes={_LANES.value}", f"--rounds_per_dispatch={_TOGETHER.value}"]
    command = [sys.executable, __file__, *own]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode == 0:
        return json.loads(done.stdout.splitlines()[-1])
    say(done.stderr)
    error = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
    return {"workload": name, "title": title, "error": error}


if __name__ == "__main__":
    commands.run(main, starts_processes=True)
