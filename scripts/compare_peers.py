"""Gives the same work to fljax and to other simulators, and prints tables of both.

    python scripts/compare_peers.py --data=DIR --out=results.jsonl --repetitions=5 \
        --workloads=softmax_1000,mlp_100 --runner fedjax='python my_fedjax_runner.py'
    python scripts/compare_peers.py --harness=DIR --data=DIR --out=results.jsonl --peers=fedjax,pfl
    python scripts/compare_peers.py --out=results.jsonl --table_only

A runner is a command that takes --data, --workload and --rounds and prints a line of JSON; what is
asked of it: `fljax/benchmarks/comparison.py`. A harness is a directory with such runners in
runners.json and a make_data.py for its own workloads. Workload files that DIR lacks are generated:
by the harness, if there is one, else from the workloads of fljax. A run can be interrupted and
started again; results that --out holds are not run again.
"""

from fljax import commands

commands.begin()  # it answers for what the imports below do

import subprocess
import sys
from pathlib import Path

from absl import app, flags

from fljax.benchmarks import comparison, comparison_table, neutral, workload_file, workloads

_OUT = flags.DEFINE_string("out", None, "File of results, one JSON line a run.", required=True)
_DATA = flags.DEFINE_string("data", None, "Directory of workload files.")
_WORKLOADS = flags.DEFINE_list("workloads", ["softmax_1000"], "Names of workloads.")
_HARNESS = flags.DEFINE_string("harness", None, "Directory with runners.json and make_data.py.")
_PEERS = flags.DEFINE_list("peers", None, "Runners of the harness; all by default.")
_RUNNER = flags.DEFINE_multi_string("runner", [], "NAME=COMMAND: a runner; can be repeated.")
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Timed rounds of a run.", lower_bound=1)
_REPETITIONS = flags.DEFINE_integer("repetitions", 5, "How often all are run.", lower_bound=1)
_TIMEOUT = flags.DEFINE_float("timeout", 900, "Seconds after which a runner is ended.")
_MEMORY_PEER = flags.DEFINE_string("memory_peer", "fedjax", "Whose memory fljax's is compared to.")
_TABLE_ONLY = flags.DEFINE_bool("table_only", False, "Print the tables of --out, run nothing.")


def main(argv):
    out = Path(_OUT.value)
    if not _TABLE_ONLY.value:
        if _DATA.value is None:
            raise app.UsageError("--data is needed: the directory of the workload files.")
        files = {name: _file(Path(_DATA.value), name) for name in _WORKLOADS.value}
        comparison.compare(
            _runners(), files, out,
            rounds=_ROUNDS.value, repetitions=_REPETITIONS.value, timeout=_TIMEOUT.value,
        )  # fmt: skip
    commands.show(comparison_table.table(comparison.read(out), _MEMORY_PEER.value))


def _runners():
    script = Path(__file__).with_name("run_workload.py")
    runners = {comparison.OURS: comparison.Runner([sys.executable, script], script.parents[1])}
    if _HARNESS.value:
        listed = comparison.harness_runners(_HARNESS.value)
        unknown = [name for name in _PEERS.value or [] if name not in listed]
        if unknown:
            raise app.UsageError(f"Unknown {unknown[0]!r}; the harness has {', '.join(listed)}.")
        runners |= {name: listed[name] for name in _PEERS.value or listed}
    for runner in _RUNNER.value:
        name, _, command = runner.partition("=")
        runners[name] = comparison.runner(command)
    return runners


def _file(directory, name):
    """Returns the path of a workload file, after generating it where it is missing."""
    path = directory / f"{name}.npz"
    if path.exists():
        return path
    directory.mkdir(parents=True, exist_ok=True)
    if _HARNESS.value and name not in workloads.WORKLOADS:
        own = [f"--out={directory.resolve()}", f"--only={name}"]
        subprocess.run([sys.executable, "make_data.py", *own], cwd=_HARNESS.value, check=True)
    else:
        workload_file.write(path, neutral.make_file(name, workloads.find(name)))
    return path


if __name__ == "__main__":
    commands.execute(main, starts_processes=True)
