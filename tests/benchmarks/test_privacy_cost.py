"""The cost of privacy, at small size: every variant runs the same rounds."""

import dataclasses

import pytest

from fljax.benchmarks import privacy_cost
from fljax.benchmarks.workloads import equal, find

pytestmark = pytest.mark.usefixtures("quick_compilation")


def test_variants_run_by_turns():
    small = dataclasses.replace(
        find("mlp_100"), population=30, cohort=4, sizes=equal(10), model_options={"hidden": (8,)}
    )
    variants = ["gaussian(0.3)", "adaptive_clipping(0.3, 0.2)"]
    found = privacy_cost.costs(small, variants, rounds=2)
    assert [row.label for row in found] == ["none", *variants]
    parameters = 784 * 8 + 8 + 8 * 10 + 10
    # of adaptive clipping a bit as well, in the width of a number
    assert [row.bytes for row in found] == [4 * parameters] * 2 + [4 * parameters + 4]
    assert "| `gaussian(0.3)` | 25,480 |" in privacy_cost.table(found)
