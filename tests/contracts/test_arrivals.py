"""Contributions as the server takes them in: scaled, and counted from the newest model."""

import jax
import numpy as np
import pytest
import reference
import toy
from contracts import harness
from contracts.harness import MANY, ONE

from fljax import algorithms
from fljax.core.schedule import Arrivals, Schedule
from fljax.core.transforms import Pipeline, UplinkLink
from fljax.engine.plan.packed_plan import pack, unpack
from fljax.engine.plan.round_plan import job_table

# (clients, how old the model is that each starts from, factor of its update) a round
PLAN = [
    ([0, 2], [0, 0], [1.0, 0.5]),
    ([3, 4], [1, 0], [0.25, 2.0]),
    ([5, 6], [2, 0], [0.7, 0.0]),
    ([0, 7, 3], [1, 2, 0], [0.5, 1.0, 0.125]),
]
RATE, VERSIONS = 0.2, 3


def tables():
    """Returns the job table of each round."""
    return [job_table(client, version=old, scale=scale) for client, old, scale in PLAN]


def planned(rebased):
    """Returns the schedule of `PLAN`."""

    def draw(state, round):
        clients, version, scale = (np.array(column) for column in PLAN[round])
        return Arrivals(clients, version, scale=scale), state

    return Schedule(lambda: (), draw, 3, num_versions=VERSIONS, has_scale=True, rebased=rebased)


def expected(rebased):
    """Keeps every old model, and takes in each update as the plan says."""
    models = [toy.initial_params()]
    for clients, versions, scales in PLAN:
        taken, weights = [], []
        for client, version, scale in zip(clients, versions, scales, strict=True):
            x, y = toy.clients()[client]
            old = models[-1 - version]
            trained = reference.local_sgd(old, x, y, RATE, 4, 1)[0]
            change = reference.combine(np.subtract, trained, models[-1] if rebased else old)
            taken.append(reference.combine(lambda leaf, by=scale: by * leaf, change))
            weights.append(len(y))
        mean = reference.weighted_mean(taken, weights)
        models.append(reference.combine(np.add, models[-1], mean))
    return models[-1]


@pytest.mark.parametrize(("rebased", "layout"), [(False, ONE), (False, MANY), (True, MANY)])
def test_updates_are_scaled_and_counted_from_the_newest_model(rebased, layout):
    spec = algorithms.fedavg(RATE)
    federation = harness.prepare(spec, tables(), layout, schedule=planned(rebased))
    run = harness.drive(federation, tables())
    toy.assert_close(run.params, expected(rebased), 1e-6)
    assert federation.program._cache_size() == 1


def test_what_only_sums_decode_cannot_be_scaled():
    summed = UplinkLink(
        encode=lambda value, state, job, key: (value, state),
        decode=lambda payload, state: payload,
        linear=True,
    )
    with pytest.raises(ValueError, match="nobody can scale a single update there"):
        federation = harness.prepare(
            algorithms.fedavg(RATE),
            tables(),
            pipeline=Pipeline(uplink=(summed,)),
            schedule=planned(False),
        )
        harness.drive(federation, tables())


def test_a_message_that_is_no_model_cannot_be_rebased():
    with pytest.raises(ValueError, match="do not receive and send one model"):
        federation = harness.prepare(algorithms.scaffold(RATE), tables(), schedule=planned(True))
        harness.drive(federation, tables())


def test_scales_travel_as_they_are():
    scale = np.array([1 / 3, 1e-30, 3e38], np.float32)
    federation = harness.prepare(algorithms.fedavg(RATE), [[0, 2, 3]])
    plan, _ = federation.planner.plan(0, job_table([0, 2, 3], scale=scale))
    found = jax.jit(unpack)(jax.tree.map(lambda leaf: leaf[:1], pack(plan))).passes[0].jobs
    assert sorted(found.scale[found.client >= 0].tolist()) == sorted(scale.tolist())
