"""The cost of compression, at small size: every variant runs, and bytes are those of its code."""

import dataclasses

import pytest

from fljax.benchmarks import compression_cost
from fljax.benchmarks.workloads import equal, find

pytestmark = pytest.mark.usefixtures("quick_compilation")


def test_variants_run_by_turns():
    small = dataclasses.replace(
        find("mlp_100"), population=4, cohort=4, sizes=equal(10), model_options={"hidden": (8,)}
    )
    uplinks = ["int8", "top_k(0.01) + error_feedback"]
    found = compression_cost.costs(small, uplinks, rounds=2)
    assert [row.label for row in found] == ["none", *uplinks]
    parameters = 784 * 8 + 8 + 8 * 10 + 10
    assert [row.bytes for row in found] == [4 * parameters, parameters + 4, 64 * (32 + 13) // 8]
    plain = found[0]
    assert plain.ratio == plain.lowest == plain.highest == 1 and plain.seconds > 0
    text = compression_cost.table(found)
    assert "| `int8` | 6,374 |" in text
