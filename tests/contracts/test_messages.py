"""All that leaves a client is one message, which uplink transforms see as a whole."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import reference
import toy
from contracts import harness, test_batchnorm
from contracts.test_uplink import clip

from fljax import algorithms
from fljax.core.transforms import Pipeline, UplinkLink
from fljax.tasks import classification

BOUND = 0.5
COHORTS = [[0, 2, 3, 6], [3, 4, 8, 2], [5, 0, 2, 3]]


def clipped(bound, *trees):
    """Returns trees scaled so that the norm of all their numbers is at most the bound."""
    norm = np.sqrt(sum((leaf**2).sum() for tree in trees for leaf in tree.values()))
    return [reference.combine(lambda leaf: leaf * min(1, bound / norm), tree) for tree in trees]


@pytest.mark.parametrize("layout", harness.LAYOUTS)
def test_the_whole_message_of_scaffold_is_clipped(layout):
    expected, own, control = reference.scaffold(
        toy.initial_params(), toy.clients(), COHORTS, lr=0.2, server_lr=0.9, batch_size=4,
        transmit=lambda *message: clipped(BOUND, *message),
    )  # fmt: skip
    pipeline = Pipeline(uplink=(clip(BOUND)._replace(covers=None, refuses_rest=True),))
    run = harness.rounds(algorithms.scaffold(0.2, 0.9), COHORTS, layout, pipeline=pipeline)
    toy.assert_close(run.params, expected, 1e-9)
    server = jax.tree.map(lambda leaf: leaf[0], run.states[-1].server)
    toy.assert_close(server.control, control, 1e-9)
    # what a client keeps for itself never left it
    rows = run.client_rows().algorithm
    for client, kept in enumerate(own):
        toy.assert_close({name: rows[name][client] for name in kept}, kept, 1e-9)
    assert set(run.by_client("uplink_bits", 0).values()) == {2 * 28 * 64}


@pytest.mark.parametrize("layout", harness.LAYOUTS)
def test_the_whole_message_of_a_model_with_batch_statistics_is_clipped(layout):
    """Each client's bound is in proportion to its weight, which the transform sees."""

    def encode(message, state, job, key):
        bound = 0.1 * job.weights["update"]
        scale = jnp.minimum(1, bound / optax.tree.norm(message))
        return jax.tree.map(lambda leaf: leaf * scale, message), state

    def transmit(change, statistics, rows):
        return clipped(0.1 * rows, change, statistics)

    cohorts = test_batchnorm.COHORTS
    federation = harness.prepare(
        algorithms.fedavg(test_batchnorm.LR), cohorts, layout,
        task=classification(test_batchnorm.Normalized, toy.CLASSES),
        batch_size=test_batchnorm.BATCH,
        pipeline=Pipeline(uplink=(UplinkLink(encode, lambda sent, state: sent, covers=None),)),
    )  # fmt: skip
    start = jax.device_get(test_batchnorm.flat(federation.variables))
    harness.drive(federation, cohorts)
    got = jax.device_get(test_batchnorm.flat(federation.variables))
    toy.assert_close(got, test_batchnorm.federated(*start, transmit), 1e-9)


def test_links_of_single_names_and_of_the_whole_message_follow_each_other():
    """Control variates are halved, the message is clipped, updates are sums of integers."""
    grain = 2.0**-30
    integers = UplinkLink(
        encode=lambda value, state, job, key: (
            jax.tree.map(lambda leaf: jnp.round(leaf / grain).astype(jnp.int64), value), state
        ),
        decode=lambda total, state: jax.tree.map(lambda leaf: leaf * grain, total),
        bits=lambda payload: jnp.uint32(7),
        linear=True,
    )  # fmt: skip
    halved = UplinkLink(
        encode=lambda value, state, job, key: (jax.tree.map(lambda x: x / 2, value), state),
        decode=lambda value, state: jax.tree.map(lambda x: x * 2, value),
        covers="control",
    )

    def transmit(change, control):
        change, control = clipped(BOUND, change, reference.combine(lambda x: x / 2, control))
        return change, reference.combine(lambda x: x * 2, control)

    expected, _, control = reference.scaffold(
        toy.initial_params(), toy.clients(), COHORTS, lr=0.2, server_lr=0.9, batch_size=4,
        transmit=transmit,
    )  # fmt: skip
    pipeline = Pipeline(uplink=(halved, clip(BOUND)._replace(covers=None), integers))
    assert pipeline.decodes_sums == (True, True, True)
    run = harness.rounds(algorithms.scaffold(0.2, 0.9), COHORTS, harness.MANY, pipeline=pipeline)
    toy.assert_close(run.params, expected, 1e-7)
    server = jax.tree.map(lambda leaf: leaf[0], run.states[-1].server)
    toy.assert_close(server.control, control, 1e-9)
    assert set(run.by_client("uplink_bits", 0).values()) == {7 + 28 * 64}


@pytest.mark.parametrize(
    ("link", "message"),
    [
        (clip(BOUND)._replace(refuses_rest=True), "covers 'update' .* sends 'control' too"),
        (clip(BOUND)._replace(covers="controls"), "'controls', which no client sends; .*'control'"),
        (
            UplinkLink(
                lambda sent, *state: (sent["update"], state[0]), lambda *_: None, covers=None
            ),
            "must be a dict of the names 'update', 'control'",
        ),
    ],
)
def test_what_a_link_leaves_out_is_refused(link, message):
    with pytest.raises(ValueError, match=message):
        harness.rounds(algorithms.scaffold(0.2), COHORTS, pipeline=Pipeline(uplink=(link,)))


def test_sums_of_integers_take_no_fractions_as_weights():
    """Weights of clients may be fractions, and what they multiply must be floats."""
    integers = UplinkLink(
        encode=lambda value, state, job, key: (
            jax.tree.map(lambda leaf: jnp.round(leaf * 1e6).astype(jnp.int32), value), state
        ),
        decode=lambda total, state: jax.tree.map(lambda leaf: leaf * 1e-6, total),
        linear=True,
    )  # fmt: skip
    options = {"pipeline": Pipeline(uplink=(integers,)), "client_weights": np.full(9, 0.5)}
    with pytest.raises(ValueError, match="sums integers, which no fraction multiplies"):
        harness.rounds(algorithms.fedavg(0.1), [[0, 3]], **options)
