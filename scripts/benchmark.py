"""Times the round program on named workloads, each in a process of its own.

python scripts/benchmark.py                       # all workloads
python scripts/benchmark.py --workloads=softmax_1000,emnist_cnn_100 --rounds=5 --out=now.json
python scripts/benchmark.py --compare=before.json,after.json
"""

import json
import subprocess
import sys
from pathlib import Path

from absl import app, flags

import fljax
from fljax.benchmarks import measure as benchmark

_WORKLOADS = flags.DEFINE_list("workloads", list(benchmark.WORKLOADS), "Names of workloads.")
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Timed rounds, after one first round.", lower_bound=1)
_SEED = flags.DEFINE_integer("seed", 0, "Seed of data and run.")
_LANES = flags.DEFINE_integer("lanes", 0, "Lanes of a device; 0 chooses.")
_OUT = flags.DEFINE_string("out", None, "JSON file for the results.")
_COMPARE = flags.DEFINE_list("compare", None, "Two JSON files: prints the ratios, runs nothing.")
_ONE = flags.DEFINE_string("one", None, "Runs a single workload here and prints its JSON line.")


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {argv[1:]}")
    if _COMPARE.value:
        print(benchmark.compare(*_COMPARE.value))
        return
    if _ONE.value:
        fljax.use_all_cores()
        result = benchmark.run(_ONE.value, _ROUNDS.value, _SEED.value, lanes=_LANES.value)
        print(json.dumps(result))
        return
    unknown = [name for name in _WORKLOADS.value if name not in benchmark.WORKLOADS]
    if unknown:
        raise app.UsageError(f"Unknown {unknown[0]}; there are {', '.join(benchmark.WORKLOADS)}.")
    results = [_in_a_process(name) for name in _WORKLOADS.value]
    if _OUT.value:
        Path(_OUT.value).write_text(json.dumps(results, indent=2) + "\n")
    print(benchmark.table(results))


def _in_a_process(name):
    """Runs a workload alone, so that its memory and first round are its own."""
    own = [f"--one={name}", f"--rounds={_ROUNDS.value}", f"--seed={_SEED.value}"]
    command = [sys.executable, __file__, *own, f"--lanes={_LANES.value}"]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(output.splitlines()[-1])


if __name__ == "__main__":
    app.run(main)
