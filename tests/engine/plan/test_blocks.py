"""Rounds are grouped in order, none is lost, and a block never goes beyond an end."""

import jax
import numpy as np
import pytest

from fljax.engine.plan.blocks import in_blocks, stack, unstack
from fljax.engine.plan.packed_plan import PackedPlan
from fljax.engine.plan.round_plan import HostPlan


def planned(count, columns=lambda round: 3):
    """Returns (plan, facts) of so many rounds; `columns` is the size of each plan."""
    nothing = [None] * (len(HostPlan._fields) - 1)
    return [
        (PackedPlan(np.full((2, columns(round)), round), None, ()), HostPlan(round, *nothing))
        for round in range(count)
    ]


def rounds_of(blocks):
    return [[fact.round for fact in facts] for _, facts in blocks]


@pytest.mark.parametrize(
    ("count", "size", "every", "expected"),
    [
        (3, 1, 10, [[0], [1], [2]]),
        (6, 3, 10, [[0, 1, 2], [3, 4, 5]]),
        (5, 3, 10, [[0, 1, 2], [3], [4]]),
        (8, 3, 4, [[0, 1, 2], [3], [4, 5, 6], [7]]),
        (4, 2, 2, [[0, 1], [2, 3]]),
        (3, 5, 2, [[0], [1], [2]]),
        (0, 2, 1, []),
    ],
)
def test_blocks_are_whole_or_single(count, size, every, expected):
    blocks = list(in_blocks(planned(count), size, lambda round: (round + 1) % every == 0))
    assert rounds_of(blocks) == expected
    assert all(plans[0].numbers[0, 0] == facts[0].round for plans, facts in blocks)


def test_plans_of_different_shapes_stay_single():
    grown = planned(6, lambda round: 3 if round < 1 else 5)
    assert rounds_of(in_blocks(grown, 2, lambda round: False)) == [[0], [1], [2, 3], [4, 5]]


def test_stacks_come_apart_again():
    plans = [plan for plan, _ in planned(4)]
    stacked = stack(plans)
    assert stacked.numbers.shape == (4, 2, 3)
    stats = ({"loss": stacked.numbers},)
    for round_stats, plan in zip(unstack(stats, 4), plans, strict=True):
        jax.tree.map(np.testing.assert_array_equal, round_stats, ({"loss": plan.numbers},))
    assert unstack(stats, 1) == [stats]
