"""Times what algorithms, aggregators, compressors, schedules or privacy add to a round, by turns.

python scripts/round_cost.py --vary=uplink
python scripts/round_cost.py --vary=uplink --workload=mlp_100 --variant='qsgd(4)' --variant='drive'
python scripts/round_cost.py --vary=privacy --variant='gaussian(0.3, 1.0)'
python scripts/round_cost.py --vary=aggregator --variant=median --variant='krum(f=10)'
python scripts/round_cost.py --vary=algorithm --variant=scaffold --variant='ditto(0.1)'
python scripts/round_cost.py --vary=schedule --variant='fedbuff(concurrency=200)'
"""

from fljax import commands

commands.begin()  # it answers for what the imports below do

import dataclasses

from absl import flags

import fljax
from fljax.benchmarks import round_cost
from fljax.benchmarks.workloads import find

_VARY = flags.DEFINE_enum("vary", "uplink", list(round_cost.SUBJECTS), "What differs.")
_WORKLOAD = flags.DEFINE_string("workload", "emnist_cnn_100", "A workload of scripts/benchmark.py.")
_VARIANTS = flags.DEFINE_multi_string(
    "variant",
    [],
    "An algorithm, aggregator, compressor, schedule or mechanism of privacy, and behind a plus the "
    "memory of a compressor, or secure aggregation; some of each unless said.",
)
_POPULATION = flags.DEFINE_integer(
    "population", None, "Clients of the population; the workload's unless set.", lower_bound=1
)
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Timed rounds of each.", lower_bound=1)


def main(argv):
    fljax.use_all_cores()
    fljax.use_compilation_cache()
    variants = _VARIANTS.value or round_cost.SUBJECTS[_VARY.value].variants
    workload = find(_WORKLOAD.value)
    if _POPULATION.value is not None:
        workload = dataclasses.replace(workload, population=_POPULATION.value)
    found = round_cost.costs(workload, _VARY.value, variants, _ROUNDS.value)
    commands.show(round_cost.table(found, _VARY.value))
    return 0


if __name__ == "__main__":
    commands.execute(main)
