"""Memories against float64 NumPy loops over clients."""

import jax
import numpy as np
import pytest
import reference
import toy
from contracts import harness

from fljax import algorithms
from fljax import compression as c
from fljax.engine.pipeline import Pipeline, UplinkLink
from fljax.engine.plan import job_table

LR = 0.2
# client 3 is lost after its work in the second round
COHORTS = [[0, 1, 2, 3], [3, 4, 8, 0], [5, 3, 0, 4]]
TABLES = [job_table(c, accepted=[r != 1 or i != 3 for i in c]) for r, c in enumerate(COHORTS)]


@pytest.fixture(autouse=True)
def x64():
    with jax.enable_x64(True):
        yield


def flatten(tree):
    return np.concatenate([tree["b"], tree["w"].ravel()])


def unflatten(vector):
    return {"b": vector[: toy.CLASSES], "w": vector[toy.CLASSES :].reshape(toy.FEATURES, -1)}


def largest(vector, k):
    """Returns the vector with all but its k largest coordinates zero."""
    kept = np.argsort(-np.abs(vector), kind="stable")[:k]
    return np.where(np.isin(np.arange(vector.size), kept), vector, 0)


def federated(transmit, receive=lambda mean, weight: mean, tables=TABLES):
    """FedAvg; transmit(client, change, accepted) -> vector, receive(mean, jobs) -> vector."""
    params = toy.initial_params()
    for table in tables:
        received, weights = [], []
        for client, accepted in zip(table.client.tolist(), table.accepted, strict=True):
            x, y = toy.clients()[client]
            if not len(y):
                continue
            trained = reference.local_sgd(params, x, y, LR, 4, 1)[0]
            change = flatten(reference.combine(np.subtract, trained, params))
            sent = transmit(client, change, accepted)
            if accepted:
                received.append(sent)
                weights.append(len(y))
        change = receive(np.average(received, axis=0, weights=weights), len(weights))
        params = reference.combine(np.add, params, unflatten(change))
    return params


def check_rows(run, select, expected):
    """The stored state of every client is that of the reference."""
    rows = select(run.client_rows().uplink[0])
    for client, kept in expected.items():
        row = flatten(jax.tree.map(lambda leaf, client=client: leaf[client], rows))
        np.testing.assert_allclose(row, kept, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("layout", harness.LAYOUTS)
def test_error_feedback(layout):
    lost = {client: np.zeros(28) for client in range(len(toy.SIZES))}

    def transmit(client, change, accepted):
        total = change + lost[client]
        sent = largest(total, 3)
        if accepted:
            lost[client] = total - sent
        return sent

    expected = federated(transmit)
    pipeline = Pipeline(uplink=(c.error_feedback(c.uplink(c.top_k(0.1))),))
    run = harness.rounds(algorithms.fedavg(LR), TABLES, layout, pipeline=pipeline)
    toy.assert_close(run.params, expected, 1e-9)
    check_rows(run, lambda state: state[1], lost)
    # three values of 64 bits; 3 x 5 bits say where they are
    assert set(run.by_client("uplink_bits", 0).values()) == {3 * 64 + 15}


def test_error_feedback_of_a_lossless_link_keeps_nothing():
    pipeline = Pipeline(uplink=(c.error_feedback(c.uplink(c.identity())),))
    run = harness.rounds(algorithms.fedavg(LR), TABLES, pipeline=pipeline)
    toy.assert_close(run.params, federated(lambda client, change, accepted: change), 1e-9)
    check_rows(run, lambda state: state[1], {client: np.zeros(28) for client in range(9)})


def test_error_feedback_refuses_linear_links():
    link = UplinkLink(lambda *args: None, lambda *args: None, linear=True)
    with pytest.raises(ValueError, match="decoded as a sum only"):
        c.error_feedback(link)


def downlink_reference(receive):
    """FedAvg whose clients train from receive(params)."""
    params = toy.initial_params()
    for cohort in COHORTS:
        start = unflatten(receive(flatten(params)))
        present = [toy.clients()[client] for client in cohort if len(toy.clients()[client][1])]
        trained = [reference.local_sgd(start, x, y, LR, 4, 1)[0] for x, y in present]
        mean = reference.weighted_mean(trained, [len(y) for _, y in present])
        change = reference.combine(np.subtract, mean, start)
        params = reference.combine(np.add, params, change)
    return params


@pytest.mark.parametrize("layout", harness.LAYOUTS)
def test_downlink_error_feedback(layout):
    lost = np.zeros(28)

    def receive(params):
        nonlocal lost
        step = np.abs(params + lost).max() / 7
        received = np.round((params + lost) / step) * step
        lost = params + lost - received
        return received

    expected = downlink_reference(receive)
    pipeline = Pipeline(downlink=(c.downlink_error_feedback(c.int8(bits=4)),))
    run = harness.rounds(algorithms.fedavg(LR), COHORTS, layout, pipeline=pipeline)
    toy.assert_close(run.params, expected, 1e-9)
    assert set(run.by_client("downlink_bits", 1).values()) == {64 + 28 * 4}


@pytest.mark.parametrize("layout", harness.LAYOUTS)
def test_downlink_difference(layout):
    held = flatten(toy.initial_params())

    def receive(params):
        nonlocal held
        held = held + largest(params - held, 6)
        return held

    expected = downlink_reference(receive)
    pipeline = Pipeline(downlink=(c.downlink_difference(c.top_k(0.2)),))
    run = harness.rounds(algorithms.fedavg(LR), COHORTS, layout, pipeline=pipeline)
    toy.assert_close(run.params, expected, 1e-9)
    assert set(run.by_client("downlink_bits", 1).values()) == {6 * 64 + 28}


def test_downlink_memories_find_the_model_of_scaffold():
    pipeline = Pipeline(downlink=(c.downlink_difference(c.identity()),))
    plain = harness.rounds(algorithms.scaffold(LR), COHORTS)
    run = harness.rounds(algorithms.scaffold(LR), COHORTS, pipeline=pipeline)
    toy.assert_close(run.params, plain.params, 1e-12)
    assert set(run.by_client("downlink_bits", 1).values()) == {2 * 28 * 64}


def test_a_message_without_a_model_is_refused():
    link = c.downlink_difference(c.identity())
    with pytest.raises(ValueError, match="neither `params` nor `variables`"):
        link.apply({"w": np.zeros(3)}, {"w": np.zeros(3)}, jax.random.key(0))
