"""Times what privacy adds to a round, with and without it by turns.

python scripts/privacy_cost.py
python scripts/privacy_cost.py --workload=mlp_100 --privacy='gaussian(0.3, 1.0)'
"""

from fljax import commands  # isort: skip, it answers for what the others do


from absl import flags

import fljax
from fljax.benchmarks import privacy_cost
from fljax.benchmarks.workloads import find

_WORKLOAD = flags.DEFINE_string("workload", "emnist_cnn_100", "A workload of scripts/benchmark.py.")
_PRIVACY = flags.DEFINE_multi_string(
    "privacy",
    ["gaussian(0.3, 1.0)", "adaptive_clipping(0.3, 1.0)"],
    "A mechanism, 'none', and behind a plus secure aggregation.",
)
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Timed rounds of each.", lower_bound=1)


def main(argv):
    fljax.use_all_cores()
    fljax.use_compilation_cache()
    found = privacy_cost.costs(find(_WORKLOAD.value), _PRIVACY.value, _ROUNDS.value)
    commands.show(privacy_cost.table(found))
    return 0


if __name__ == "__main__":
    commands.run(main)
