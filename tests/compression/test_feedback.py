"""Memories against float64 NumPy loops over clients."""

import jax
import numpy as np
import pytest
import reference
import toy
from compression_reference import (
    COHORTS,
    LR,
    TABLES,
    check_kept,
    federated,
    flatten,
    largest,
    unflatten,
    zeros,
)
from contracts import harness, test_batchnorm

from fljax import algorithms
from fljax import compression as c
from fljax.core.transforms import Pipeline, UplinkLink
from fljax.tasks import classification
from fljax.training.rehearsal import rehearsed

pytestmark = pytest.mark.usefixtures("quick_compilation", "weights_as_written")


@pytest.fixture(autouse=True)
def x64():
    with jax.enable_x64(True):
        yield


def test_error_feedback():
    lost = zeros()

    def transmit(client, change, accepted):
        total = change + lost[client]
        sent = largest(total, 3)
        if accepted:
            lost[client] = total - sent
        return sent

    expected = federated(transmit)
    pipeline = Pipeline(uplink=(c.error_feedback(c.uplink(c.top_k(0.1))),))
    run = harness.rounds(algorithms.fedavg(LR), TABLES, harness.MANY, pipeline=pipeline)
    toy.assert_close(run.params, expected, 1e-9)
    check_kept(run, lambda state: state[1], lost)
    # three values of 64 bits; 3 x 5 bits say where they are
    assert set(run.by_client("uplink_bits", 0).values()) == {3 * 64 + 15}


def test_error_feedback_of_a_lossless_link_keeps_nothing():
    pipeline = Pipeline(uplink=(c.error_feedback(c.uplink(c.identity())),))
    run = harness.rounds(algorithms.fedavg(LR), TABLES, pipeline=pipeline)
    toy.assert_close(run.params, federated(lambda client, change, accepted: change), 1e-9)
    check_kept(run, lambda state: state[1], zeros())


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


def test_downlink_error_feedback():
    lost = np.zeros(28)

    def receive(params):
        nonlocal lost
        step = np.abs(params + lost).max() / 7
        received = np.round((params + lost) / step) * step
        lost = params + lost - received
        return received

    expected = downlink_reference(receive)
    pipeline = Pipeline(downlink=(c.downlink_error_feedback(c.int8(bits=4)),))
    run = harness.rounds(algorithms.fedavg(LR), COHORTS, pipeline=pipeline)
    toy.assert_close(run.params, expected, 1e-9)
    assert set(run.by_client("downlink_bits", 1).values()) == {64 + 28 * 4}


def test_downlink_difference():
    held = flatten(toy.initial_params())

    def receive(params):
        nonlocal held
        held = held + largest(params - held, 6)
        return held

    expected = downlink_reference(receive)
    pipeline = Pipeline(downlink=(c.downlink_difference(c.top_k(0.2)),))
    run = harness.rounds(algorithms.fedavg(LR), COHORTS, pipeline=pipeline)
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


MEMORIES = {
    "error_feedback": c.error_feedback,
    "ef21": lambda link: c.ef21(link, 9),
    "diana": lambda link: c.diana(link, 9, rate=0.5),
    "marina": lambda link: c.marina(link, 0.5),
    "powersgd": lambda link: c.powersgd(1),
}


def rehearse(link, spec, task=None):
    """Traces a round of one client."""
    pipeline = Pipeline(uplink=(link,))
    return rehearsed(toy.dataset(toy.clients()), task or toy.softmax_task(), spec, pipeline)


@pytest.mark.parametrize("name", MEMORIES)
def test_memories_of_what_is_not_like_the_parameters_are_refused(name):
    """The whole message, whenever it is said; and statistics of BatchNorm."""
    whole = UplinkLink(lambda sent, state, *_: (sent, state), lambda sent, state: sent, covers=None)
    for link in (MEMORIES[name](whole), MEMORIES[name](c.uplink(c.int8()))):
        with pytest.raises(ValueError, match=f"{name} keeps .* parameters.*covers='update'"):
            rehearse(link._replace(covers=None), algorithms.scaffold(0.1))
    task = classification(test_batchnorm.Normalized, toy.CLASSES)
    link = MEMORIES[name](c.uplink(c.int8()))._replace(covers="model_state")
    with pytest.raises(ValueError, match=f"{name} keeps .* parameters.*covers='update'"):
        rehearse(link, algorithms.fedavg(0.1), task)


@pytest.mark.parametrize("name", MEMORIES)
def test_memories_of_what_is_like_the_parameters_work(name):
    link = MEMORIES[name](c.uplink(c.int8()))._replace(covers="control")
    shapes = rehearse(link, algorithms.scaffold(0.1))
    assert shapes.arrived[0][1]["control"]["w"].shape == (toy.FEATURES, toy.CLASSES)
