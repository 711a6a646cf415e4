"""A plan that travels as one array is the plan that was made."""

import jax
import numpy as np
import toy

from fljax.engine.devices.execution import ExecutionPlan
from fljax.engine.plan.batching import LocalWork
from fljax.engine.plan.packed_plan import PackedPlan, pack, unpack
from fljax.engine.plan.planner import make_planner
from fljax.engine.plan.round_plan import job_table


def test_packing_loses_nothing():
    planner = make_planner(
        toy.dataset(toy.clients()).train, LocalWork(2, None, 4), ["local", "epoch"],
        ExecutionPlan(3, 2, 4, 1, "stream"), max_cohort=9, seeds=[0],
    )  # fmt: skip
    jobs = job_table(np.arange(9), accepted=np.arange(9) % 2 == 0)
    plan, _ = planner.plan(5, jobs)
    packed = pack(plan)
    assert packed.numbers.shape[0] == 3 and packed.numbers.dtype == np.int32
    for device in range(3):
        own = PackedPlan(
            packed.numbers[device : device + 1],
            jax.tree.map(lambda leaf, at=device: leaf[at : at + 1], packed.staged),
            packed.layout,
        )
        with jax.enable_x64(True):
            found = jax.jit(unpack)(own)
        expected = plan._replace(
            passes=jax.tree.map(lambda leaf, at=device: leaf[at], plan.passes),
            staged=jax.tree.map(lambda leaf, at=device: leaf[at], plan.staged),
        )
        assert found.passes[0].jobs.accepted.dtype == bool
        jax.tree.map(np.testing.assert_array_equal, found, expected)
