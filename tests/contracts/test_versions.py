"""A job may start from an older version of its trial's model: trial and version are two things."""

import jax
import numpy as np
import pytest
import reference
import toy
from contracts import harness
from contracts.harness import MANY, ONE

from fljax import algorithms
from fljax.core.gradients import bind
from fljax.core.transforms import Pipeline
from fljax.engine.devices.placement import put_same
from fljax.engine.plan.round_plan import job_table
from fljax.engine.program.round import make_round_program
from fljax.engine.program.versions import empty_ring
from fljax.training.trials import TrialInputs

# (clients, how old the model is that each of them starts from), by round and trial
PLAN = [
    [([0, 2], [0, 0]), ([3], [0])],
    [([3, 4], [1, 0]), ([0, 2], [0, 1])],
    [([5, 6], [2, 0]), ([8], [1])],
    [([0, 7, 3], [1, 2, 0]), ([5, 6], [2, 2])],
]
RATES, VERSIONS = (0.2, 0.1), 3


def tables(trials):
    """Returns the job table of each round, of so many trials."""
    columns = [
        [
            (client, trial, version)
            for trial in range(trials)
            for client, version in zip(*round[trial], strict=True)
        ]
        for round in PLAN
    ]
    parts = [np.array(column).T for column in columns]
    return [job_table(client, trial=trial, version=version) for client, trial, version in parts]


def with_versions(federation, specs, num_versions):
    """Puts a program that keeps several versions in the place of a federation's own."""

    def build(frozen, hparams, round):
        return specs[0].build(bind(federation.task, frozen), hparams)

    one = jax.tree.map(lambda leaf: leaf[0], federation.state.server)
    ring = empty_ring(federation.algorithm, one, num_versions)
    several = jax.tree.map(lambda leaf: np.stack([leaf] * len(specs)), ring)
    federation.state = federation.state._replace(past=put_same(several, federation.mesh))
    federation.planner = federation.planner._replace(num_versions=num_versions)
    federation.program = make_round_program(
        build, Pipeline(), federation.mesh, len(specs), num_versions
    )


def fedavg_reference(trial):
    """Keeps every old model; an update is the change from the model that the client had."""
    models = [toy.initial_params()]
    for round in PLAN:
        changes, weights = [], []
        for client, version in zip(*round[trial], strict=True):
            x, y = toy.clients()[client]
            old = models[-1 - version]
            trained = reference.local_sgd(old, x, y, RATES[trial], 4, 1)[0]
            changes.append(reference.combine(np.subtract, trained, old))
            weights.append(len(y))
        mean = reference.weighted_mean(changes, weights)
        models.append(reference.combine(np.add, models[-1], mean))
    return models[-1]


@pytest.mark.parametrize(("trials", "layout"), [(1, ONE), (2, MANY)])
def test_jobs_of_one_trial_start_from_several_versions(trials, layout):
    specs = [algorithms.fedavg(rate) for rate in RATES[:trials]]
    inputs = [TrialInputs(0, spec.hparams) for spec in specs]
    federation = harness.prepare(specs[0], tables(trials), layout, trials=inputs)
    with_versions(federation, specs, VERSIONS)
    harness.drive(federation, tables(trials))
    for trial in range(trials):
        got = jax.device_get(federation.variables_of(trial).params)
        toy.assert_close(got, fedavg_reference(trial), 1e-9)
    assert federation.program._cache_size() == 1


def test_a_trial_that_takes_the_place_of_another_starts_with_a_ring_of_its_own():
    """The place of trial 0 is taken by one like trial 1 after two rounds of something else."""
    specs = [algorithms.fedavg(rate) for rate in RATES]
    inputs = [TrialInputs(0, spec.hparams) for spec in specs]
    federation = harness.prepare(specs[0], tables(2), trials=inputs)
    with_versions(federation, specs, VERSIONS)
    harness.drive(federation, tables(2)[:2])
    federation.replace({place: TrialInputs(0, spec.hparams) for place, spec in enumerate(specs)})
    harness.drive(federation, tables(2))
    for trial in range(2):
        got = jax.device_get(federation.variables_of(trial).params)
        toy.assert_close(got, fedavg_reference(trial), 1e-9)
    assert federation.program._cache_size() == 1


def test_versions_that_there_are_not_are_refused():
    federation = harness.prepare(algorithms.fedavg(0.1), [[0, 2]])
    with pytest.raises(ValueError, match="Client 2 is to start from version 1 in round 3"):
        federation.planner.plan(3, job_table([0, 2], version=[0, 1]))
    planner = federation.planner._replace(num_versions=4)
    with pytest.raises(ValueError, match=r"version 3 in round 2, .* versions 0 to 2"):
        planner.plan(2, job_table([0, 2], version=[3, 1]))
    spec = federation.algorithm
    with pytest.raises(ValueError, match="of one pass"):
        empty_ring(spec._replace(passes=spec.passes * 2), None, 4)
