"""Runs a workload file with fljax and prints one JSON line: fljax's part of a comparison.

python scripts/run_workload.py --data=w2c100.npz --workload=w2c100 --rounds=5

What the file holds: `fljax/benchmarks/workload_file.py`. Who calls this: scripts/compare_peers.py,
or any harness with the same contract.
"""

from fljax import commands

commands.begin()  # it answers for what the imports below do

import json

from absl import flags

import fljax
from fljax.benchmarks import runner

_DATA = flags.DEFINE_string("data", None, "The workload file.", required=True)
_WORKLOAD = flags.DEFINE_string("workload", None, "Name of the workload.", required=True)
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Timed rounds, after one first round.", lower_bound=1)
_TOGETHER = flags.DEFINE_integer(
    "rounds_per_dispatch",
    0,
    "Rounds of one dispatch; they divide --rounds. 0 chooses.",
    lower_bound=0,
)


def main(argv):
    fljax.use_all_cores()
    fljax.use_compilation_cache()
    line = runner.run(
        _DATA.value, _WORKLOAD.value, _ROUNDS.value, rounds_per_dispatch=_TOGETHER.value
    )
    commands.show(json.dumps(line))


if __name__ == "__main__":
    commands.execute(main)
