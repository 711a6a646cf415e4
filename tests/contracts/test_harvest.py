"""Lanes exchanged together, and clients that appear twice: the layout changes nothing."""

import numpy as np
import pytest
import reference
import toy
from contracts import harness
from contracts.harness import Layout

from fljax import algorithms
from fljax.engine.plan import job_table

LR = 0.2
SPEC = algorithms.scaffold(LR, 0.9)


def assert_controls(run, expected):
    """Asserts every client's control variate; `expected` holds one tree a client."""
    rows = run.client_rows().algorithm
    for name in rows:
        own = np.stack([tree[name] for tree in expected])
        np.testing.assert_allclose(rows[name], own, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    "sizes, wave, harvest", [([8] * 10, 5, 3), ([8, 4, 8, 8, 12, 4, 12, 8, 0, 16], 2, 3)]
)
def test_lanes_that_finish_together_are_exchanged_together(sizes, wave, harvest):
    """Also where only some lanes end at one time, and where a wave is smaller than a harvest."""
    cohorts, parts = [list(range(10)), [1, 3, 5, 7]], toy.clients(sizes)
    params, own, _ = reference.scaffold(
        toy.initial_params(), parts, cohorts, lr=LR, server_lr=0.9, batch_size=4
    )
    federation = harness.prepare(SPEC, cohorts, Layout(2, 3, wave), parts=parts)
    execution = federation.execution._replace(wave=wave, harvest=harvest)
    federation.planner = federation.planner._replace(execution=execution)
    run = harness.drive(federation, cohorts)
    toy.assert_close(run.params, params, 1e-9)
    assert_controls(run, own)


@pytest.mark.parametrize("layout", [harness.ONE, Layout(4, 1, 1)])
def test_of_a_repeated_client_the_last_accepted_state_is_kept(layout):
    """The later job is longer, so it comes first on the devices; the last one is lost."""
    jobs = [(3, 1, True), (0, 1, True), (3, 3, True), (2, 1, True), (3, 2, False)]
    clients, steps, accepted = zip(*jobs, strict=True)
    changes, own = [], [reference.zeros(toy.initial_params()) for _ in toy.SIZES]
    for client, count, arrives in jobs:
        x, y = (column[: 4 * count] for column in toy.clients()[client])
        end = reference.local_sgd(toy.initial_params(), x, y, LR, 4, 1)[0]
        if arrives:
            change = reference.combine(np.subtract, end, toy.initial_params())
            own[client] = reference.combine(lambda d, k=count: -d / (k * LR), change)
            changes.append(change)
    mean = reference.weighted_mean(changes, [1] * len(changes))
    table = job_table(clients, steps=steps, accepted=accepted)
    run = harness.rounds(SPEC, [table], layout)
    toy.assert_close(
        run.params,
        reference.combine(lambda p, d: p + 0.9 * d, toy.initial_params(), mean),
        1e-9,
    )
    assert_controls(run, own)
