"""Times what compressors add to a round, with and without them by turns.

python scripts/compression_cost.py
python scripts/compression_cost.py --workload=mlp_100 --uplink='qsgd(4)' --uplink='drive'
"""

from fljax import commands  # isort: skip, it answers for what the others do


from absl import flags

import fljax
from fljax.benchmarks import compression_cost
from fljax.benchmarks.workloads import find

_WORKLOAD = flags.DEFINE_string("workload", "emnist_cnn_100", "A workload of scripts/benchmark.py.")
_UPLINKS = flags.DEFINE_multi_string(
    "uplink",
    ["top_k(0.01)", "int8", "top_k(0.01) + error_feedback"],
    "A compressor, and behind a plus its memory.",
)
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Timed rounds of each.", lower_bound=1)


def main(argv):
    fljax.use_all_cores()
    fljax.use_compilation_cache()
    found = compression_cost.costs(find(_WORKLOAD.value), _UPLINKS.value, _ROUNDS.value)
    commands.show(compression_cost.table(found))
    return 0


if __name__ == "__main__":
    commands.run(main)
