"""Holds the whole ceremony of secure aggregation on the host, and prints what it costs.

python scripts/secagg_ceremony.py --clients=100 --size=7850 --dropout=0.05
python scripts/secagg_ceremony.py --clients=1000 --size=1206590 --nohold
"""

from fljax import commands

commands.begin()  # it answers for what the imports below do


from absl import flags

from fljax.benchmarks import ceremonies
from fljax.privacy.secagg.degrees import masking_graph

_CLIENTS = flags.DEFINE_integer("clients", 100, "Clients of a cohort.", lower_bound=3)
_SIZE = flags.DEFINE_integer("size", 7850, "Words of a message.", lower_bound=1)
_DEGREE = flags.DEFINE_integer(
    "degree", None, "Neighbours of a client on the regular graph; unset: as few as hide it."
)
_DROPOUT = flags.DEFINE_float("dropout", 0.05, "Share of clients that are lost.", 0.0, 0.3)
_HOLD = flags.DEFINE_bool("hold", True, "Hold the ceremonies, instead of formulas alone.")


def main(argv):
    count, degree = _CLIENTS.value, _DEGREE.value
    if degree is None:
        degree = masking_graph(count, dropped=_DROPOUT.value).degree
    found = ceremonies.costs(count, _SIZE.value, degree, _DROPOUT.value, held=_HOLD.value)
    commands.show(ceremonies.table(found))
    return 0


if __name__ == "__main__":
    commands.execute(main)
