"""Chains of uplink transforms: what they send, what they keep, what is summed before decoding."""

import compression_reference
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
from compression_reference import LR, TABLES
from contracts import harness
from jax.flatten_util import ravel_pytree

from fljax import algorithms
from fljax.core.transforms import Pipeline, UplinkLink

BOUND, SKETCH = 0.5, 10
PROJECTION = np.random.default_rng(5).standard_normal((28, SKETCH)) / 3


def clip(bound):
    """Clips by the global norm."""

    def encode(value, state, job, key):
        norm = jnp.sqrt(sum((leaf**2).sum() for leaf in jax.tree.leaves(value)))
        scale = jnp.minimum(1, bound / norm)
        return jax.tree.map(lambda leaf: leaf * scale, value), state

    return UplinkLink(encode, lambda payload, state: payload)


def top_one(template):
    """Sends the largest coordinate, and keeps the rest for the client's next round."""
    flat, unravel = ravel_pytree(template)

    def encode(value, residual, job, key):
        total = ravel_pytree(value)[0] + residual
        index = jnp.argmax(jnp.abs(total)).astype(jnp.int32)
        return {"index": index, "value": total[index]}, total.at[index].set(0)

    def decode(payload, state):
        return unravel(jnp.zeros(flat.shape).at[payload["index"]].set(payload["value"]))

    return UplinkLink(encode, decode, init_client=lambda params: jnp.zeros(flat.shape))


def sketch(template):
    """Projects onto a few random directions; the server decodes the sum of the projections."""
    unravel = ravel_pytree(template)[1]
    return UplinkLink(
        encode=lambda value, state, job, key: (ravel_pytree(value)[0] @ PROJECTION, state),
        decode=lambda payload, state: unravel(PROJECTION @ payload),
        linear=True,
    )


def federated(transmit):
    """FedAvg whose server sees transmit(client, clipped change, accepted) -> vector."""

    def clipped(client, change, accepted):
        scale = min(1, BOUND / np.sqrt((change**2).sum()))
        return transmit(client, change * scale, accepted)

    return compression_reference.federated(clipped)


def check_bits(run, bits):
    """Each job that arrives costs `bits`; a lost one, or a client without rows, nothing."""
    for round, table in enumerate(TABLES):
        expected = {
            client: bits * accepted
            for client, accepted in zip(table.client.tolist(), table.accepted.tolist(), strict=True)
            if client != 1
        }
        assert run.by_client("uplink_bits", round) == expected
        assert set(run.by_client("downlink_bits", round).values()) == {28 * 64}


@pytest.mark.parametrize("layout", harness.LAYOUTS)
def test_error_feedback_is_kept_by_clients_that_arrived(layout):
    residual = {client: np.zeros(28) for client in range(len(toy.SIZES))}

    def transmit(client, change, accepted):
        total = change + residual[client]
        sent = np.zeros(28)
        largest = np.argmax(np.abs(total))
        sent[largest] = total[largest]
        if accepted:
            residual[client] = total - sent
        return sent

    expected = federated(transmit)
    pipeline = Pipeline(uplink=(clip(BOUND), top_one(toy.initial_params())))
    run = harness.rounds(algorithms.fedavg(LR), TABLES, layout, pipeline=pipeline)
    toy.assert_close(run.params, expected, 1e-9)
    rows = run.client_rows().uplink[1]
    for client, kept in residual.items():
        np.testing.assert_allclose(rows[client], kept, rtol=1e-9, atol=1e-12)
    check_bits(run, 32 + 64)


@pytest.mark.parametrize("layout", harness.LAYOUTS)
def test_linear_payloads_are_summed_before_they_are_decoded(layout):
    expected = federated(lambda client, change, accepted: PROJECTION @ (change @ PROJECTION))
    pipeline = Pipeline(uplink=(clip(BOUND), sketch(toy.initial_params())))
    federation = harness.prepare(algorithms.fedavg(LR), TABLES, layout, pipeline=pipeline)
    run = harness.drive(federation, TABLES)
    toy.assert_close(run.params, expected, 1e-9)
    check_bits(run, SKETCH * 64)
