"""The cost of what is added to a round, at small size: every variant runs, with its bytes."""

import dataclasses

import pytest

from fljax.benchmarks import round_cost
from fljax.benchmarks.workloads import equal, find

pytestmark = pytest.mark.usefixtures("quick_compilation", "weights_as_written")

PARAMETERS = 784 * 8 + 8 + 8 * 10 + 10
PLAIN = 4 * PARAMETERS
# subject: {variant: bytes a client sends}
BYTES = {
    "uplink": {
        "none": PLAIN,
        "int8": PARAMETERS + 4,
        "top_k(0.01) + error_feedback": 64 * (32 + 13) // 8,
    },
    # of adaptive clipping a bit as well, in the width of a number
    "privacy": {
        "none": PLAIN,
        "gaussian(0.3, 1.0)": PLAIN,
        "adaptive_clipping(0.3, 0.2)": PLAIN + 4,
    },
    "aggregator": {"mean": PLAIN, "median": PLAIN, "bucketing(2), krum(f=0)": PLAIN},
    "algorithm": {"fedavg": PLAIN, "scaffold": 2 * PLAIN},
}


@pytest.mark.parametrize("subject", BYTES)
def test_variants_run_by_turns(subject):
    small = dataclasses.replace(
        find("mlp_100"), population=30, cohort=4, sizes=equal(10), model_options={"hidden": (8,)}
    )
    plain, *variants = BYTES[subject]
    found = round_cost.costs(small, subject, variants, rounds=2)
    assert {row.label: row.bytes for row in found} == BYTES[subject]
    first = found[0]
    assert first.ratio == first.lowest == first.highest == 1 and first.seconds > 0
    text = round_cost.table(found, subject)
    assert f"| `{plain}` | {PLAIN:,} |" in text
