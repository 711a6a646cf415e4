"""Rounds in simulated time: on time they are plain rounds, bit for bit; the lost leave no trace."""

import jax
import numpy as np
import pytest
import reference
import toy
from contracts import harness
from contracts.harness import MANY
from contracts.test_asynchronous_rounds import BATCH, LR, WORLD, N, prepared, ran

from fljax import algorithms
from fljax.compression import error_feedback, top_k, uplink
from fljax.core.sampler import uniform
from fljax.core.transforms import Pipeline
from fljax.systems.devices import equal

ROUNDS, K = 6, 4
ON_TIME = (
    "wait_for_all", "wait_for_all(retries=2)", "deadline(1000)", "deadline(1000, 'partial')",
    "over_selection(1.0)", "over_selection(1.0, 1000)",
)  # fmt: skip


def same(run, other):
    """Asserts that two runs end with the same bits."""
    for one, two in zip(*map(jax.tree.leaves, (run.params, other.params)), strict=True):
        np.testing.assert_array_equal(one, two)


def plain(layout, cohorts, **options):
    options = {"clients_per_round": K} | options
    tables = [np.array(cohort) for cohort in cohorts]
    return harness.rounds(algorithms.fedavg(LR), tables, layout, **options)


def drawn():
    sampler = uniform(N, K, 0)
    return [sampler.select((), round)[0] for round in range(ROUNDS)]


@pytest.fixture(scope="module")
def fedavg():
    with jax.enable_x64(True):
        return plain(MANY, drawn())


@pytest.mark.parametrize("schedule", ON_TIME)
def test_clients_that_are_equal_and_on_time_train_as_without_time(schedule, fedavg):
    run = ran(
        prepared(
            algorithms.fedavg(LR), MANY, rounds=ROUNDS, clients_per_round=K, dropout=0.0,
            schedule=schedule, profiles=equal(N),
        ),
        ROUNDS,
    )  # fmt: skip
    same(run, fedavg)
    for facts in run.facts:
        assert not any(
            facts.records[0][f"systems/clients_{f}"] for f in ("late", "lost", "partial")
        )


def test_a_buffer_of_all_who_work_and_equal_times_are_synchronous_rounds():
    parts = [(x[:8], y[:8]) for x, y in toy.clients((9, 8, 12, 8, 10, 8, 8, 8, 31))]
    federation = prepared(
        algorithms.fedavg(LR), MANY, rounds=ROUNDS, clients_per_round=K, dropout=0.0, parts=parts,
        schedule=f"fedbuff(concurrency={K})", profiles=equal(N),
    )  # fmt: skip
    state, cohorts = federation.cohorts.init(), []
    for round in range(ROUNDS):
        found = federation.cohorts.draw(round, state)
        cohorts.append(found.jobs.client)
        state = found.states
    assert federation.planner.num_versions == 1
    same(ran(federation, ROUNDS), plain(MANY, cohorts, parts=parts))


def test_partial_work_is_a_loop_of_fewer_steps():
    seconds = 3.0
    world = WORLD._replace(dropout=0.0, spread=0.0)
    run = ran(
        prepared(
            algorithms.fedavg(LR), MANY, world, ROUNDS, clients_per_round=K,
            schedule=f"deadline({seconds}, 'partial')",
        ),
        ROUNDS,
    )  # fmt: skip
    params, fewer = toy.initial_params(), 0
    for cohort in drawn():
        changes, weights = [], []
        for client in cohort.tolist():
            x, y = toy.clients()[client]
            fitting = int(seconds / world.step_seconds[client] + 1e-9)
            if not len(y) or not fitting:
                continue
            fewer += BATCH * fitting < len(y)
            seen = slice(BATCH * fitting)
            trained = reference.local_sgd(params, x[seen], y[seen], LR, BATCH, 1)[0]
            changes.append(reference.combine(np.subtract, trained, params))
            weights.append(len(y))
        mean = reference.weighted_mean(changes, weights)
        params = reference.combine(np.add, params, mean)
    assert fewer > 3
    toy.assert_close(run.params, params, 1e-9)


def test_lost_clients_leave_no_trace():
    """Sums, models and what clients keep are as if those who are lost had never been asked."""
    pipeline = Pipeline(uplink=(error_feedback(uplink(top_k(0.25))),))
    spec, lost = algorithms.fedavg(LR), 0.5
    federation = prepared(
        spec, MANY, rounds=ROUNDS, clients_per_round=K, schedule="wait_for_all", dropout=lost,
        pipeline=pipeline,
    )  # fmt: skip
    state, kept = federation.cohorts.init(), []
    for round in range(ROUNDS):
        jobs, _, state, *_ = federation.cohorts.draw(round, state)
        kept.append(jobs.client[jobs.accepted])
    run = ran(federation, ROUNDS)
    other = harness.rounds(spec, kept, MANY, pipeline=pipeline, clients_per_round=K)
    assert sum(map(len, kept)) < K * ROUNDS
    toy.assert_close(run.params, other.params, 1e-12)
    rows, others = run.client_rows(), other.client_rows()
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), rows, others)
    for round in range(ROUNDS):
        for name in ("loss", "weight"):
            assert run.total(name, round) == pytest.approx(other.total(name, round), rel=1e-12)
