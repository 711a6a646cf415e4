"""Lanes exchanged together, and clients that appear twice: the layout changes nothing."""

import jax
import numpy as np
import pytest
import reference
import toy
from accelerators import exchanging
from contracts import harness
from contracts.harness import Layout

from fljax import algorithms
from fljax.core.transforms import Pipeline
from fljax.engine.plan.round_plan import job_table
from fljax.engine.store.client_store import ClientStore
from fljax.training.client_state import default_rows

LR = 0.2
SPEC = algorithms.scaffold(LR, 0.9)


def assert_controls(run, expected):
    """Asserts every client's control variate; `expected` holds one tree a client."""
    rows = run.client_rows().algorithm
    for name in rows:
        own = np.stack([tree[name] for tree in expected])
        np.testing.assert_allclose(rows[name], own, rtol=1e-9, atol=1e-12)


MANY, EQUAL, ONE = [8, 4, 8, 8, 12, 4, 12, 8, 0, 16], [8] * 10, [0] * 9 + [3]


@pytest.mark.parametrize(
    ("sizes", "devices", "lanes", "size"),
    [
        *((MANY, *counts) for counts in [(2, 4, 2), (1, 12, 12), (1, 5, 4)]),
        *((EQUAL, *counts) for counts in [(2, 3, 3), (1, 3, 2)]),
        *((ONE, *counts) for counts in [(2, 4, 2), (1, 12, 12)]),
    ],
)
def test_lanes_exchange_together(sizes, devices, lanes, size):
    """Clients end together, or wait for others, beside lanes that never have a job."""
    cohorts, parts = [list(range(10)), [1, 3, 5, 9], [9]], toy.clients(sizes)
    params, own, _ = reference.scaffold(
        toy.initial_params(), parts, cohorts, lr=LR, server_lr=0.9, batch_size=4
    )
    with exchanging(size):
        federation = harness.prepare(SPEC, cohorts, Layout(devices, lanes, 1), parts=parts)
    assert federation.execution.exchange_size == size
    run = harness.drive(federation, cohorts)
    toy.assert_close(run.params, params, 1e-9)
    assert_controls(run, own)


@pytest.mark.parametrize(("lanes", "size"), [(3, 3), (3, 2)])
def test_a_round_without_jobs_changes_nothing(lanes, size):
    """Client 1 has no rows; one wave of a round that holds no more is run in any case."""
    with exchanging(size):
        federation = harness.prepare(SPEC, [[0, 2, 3], [1]], Layout(1, lanes, 1))
    before = harness.drive(federation, [[0, 2, 3]])
    after = harness.drive(federation, [[1]])
    toy.assert_close(after.params, before.params, 0)
    assert after.total("jobs", 0) == 0


# one cohort's (client, local steps, accepted); longer jobs come first on the devices
LOST_AT_LAST = [(3, 1, True), (0, 1, True), (3, 3, True), (2, 1, True), (3, 2, False)]
# the third batch of client 3 holds a NaN, and so does the only one of client 2
BROKEN_AT_LAST = [
    (3, 1, True), (2, 1, True), (3, 2, True), (0, 1, True), (3, 3, True), (3, 1, False),
    (3, 4, True), (2, 1, True),
]  # fmt: skip


def parts_of(jobs):
    parts = toy.clients()
    if jobs is BROKEN_AT_LAST:
        parts[3][0][9] = parts[2][0][0] = np.nan
    return parts


@pytest.mark.parametrize(
    ("jobs", "layout", "on_host"),
    [
        (LOST_AT_LAST, Layout(4, 1, 1), False),
        (BROKEN_AT_LAST, harness.ONE, False),
        (BROKEN_AT_LAST, Layout(4, 1, 1), False),
        (BROKEN_AT_LAST, Layout(4, 1, 1), True),
        (BROKEN_AT_LAST, harness.MANY, False),
    ],
)
def test_of_a_repeated_client_the_last_kept_state_stays(jobs, layout, on_host):
    """Wherever its jobs ran; the round after starts from it."""
    parts = parts_of(jobs)
    own = [reference.zeros(toy.initial_params()) for _ in toy.SIZES]
    params, control = toy.initial_params(), reference.zeros(toy.initial_params())
    second = [(3, 1, True), (0, 1, True)]
    for cohort in (jobs, second):
        changes, learned = [], list(own)
        for client, count, arrives in cohort:
            x, y = (column[: 4 * count] for column in parts[client])
            shift = reference.combine(np.subtract, control, own[client])
            end = reference.local_sgd(params, x, y, LR, 4, 1, shift=shift)[0]
            change = reference.combine(np.subtract, end, params)
            if arrives and np.isfinite(change["w"]).all():
                learned[client] = reference.combine(
                    lambda s, d, k=count: -s - d / (k * LR), shift, change
                )
                drift = reference.combine(np.subtract, learned[client], own[client])
                changes.append((change, drift))
        own = learned
        for change, drift in changes:
            step, share = 0.9 / len(changes), 1 / np.count_nonzero(toy.SIZES)
            params = reference.combine(lambda p, d, step=step: p + step * d, params, change)
            control = reference.combine(lambda c, d, share=share: c + share * d, control, drift)
    tables = [
        job_table(clients, steps=steps, accepted=accepted)
        for clients, steps, accepted in (zip(*cohort, strict=True) for cohort in (jobs, second))
    ]
    federation = harness.prepare(SPEC, tables, layout, parts=parts)
    if on_host:
        variables = jax.tree.map(lambda leaf: leaf[None], federation.variables)
        default = default_rows(federation.algorithm, Pipeline(), variables)
        federation.store = ClientStore(default, len(parts), federation.mesh, on_host=True)
    run = harness.drive(federation, tables)
    toy.assert_close(run.params, params, 1e-9)
    assert_controls(run, own)
