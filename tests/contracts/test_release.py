"""Noise that a server adds before a sum is used, and the end of messages that are not finite."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
import toy
from contracts import harness

from fljax import algorithms
from fljax.core.transforms import Pipeline, UplinkLink
from fljax.core.trees import all_finite

COHORTS = [[0, 2, 3], [3, 4, 8], [5, 0, 2]]
BROKEN = 3


def doubling(members):
    """Scales messages by a number that the server doubles each round; counts a fixed cohort."""

    def encode(message, state, job, key, scale):
        scaled = jax.tree.map(lambda leaf: leaf * scale, message)
        sound = all_finite(message)
        return jax.tree.map(lambda leaf: jnp.where(sound, leaf, 0), scaled), state

    def release(message, scale, round, key):
        told = {
            name: total._replace(
                sum=jax.tree.map(lambda leaf: leaf + round, total.sum),
                weight=jnp.full_like(total.weight, members),
                count=jnp.full_like(total.count, members),
            )
            for name, total in message.items()
        }
        return told, scale * 2

    return UplinkLink(
        encode,
        lambda payload, state: payload,
        init_server=lambda params: jnp.ones(()),
        covers=None,
        refuses_rest=True,
        sees_server=True,
        makes_finite=True,
        release=release,
    )


@pytest.mark.parametrize("layout", harness.LAYOUTS)
def test_a_release_sees_every_sum_and_clients_are_told_the_state(layout):
    """A round without clients is released too; a broken message counts as a zero."""
    parts = toy.clients()
    parts[BROKEN] = (np.full_like(parts[BROKEN][0], np.nan), parts[BROKEN][1])
    cohorts, members = [*COHORTS[:2], [], *COHORTS[2:]], 4.0
    pipeline = Pipeline(uplink=(doubling(members),))
    run = harness.rounds(
        algorithms.fedavg(0.2, weighting="uniform"), cohorts, layout, parts=parts, pipeline=pipeline
    )  # fmt: skip
    params, scale = toy.initial_params(), 1.0
    for round, cohort in enumerate(cohorts):
        kept = [client for client in cohort if client != BROKEN]
        trained = [
            reference.local_sgd(params, *parts[client], lr=0.2, batch_size=4, epochs=1)[0]
            for client in kept
        ]
        params = {
            name: leaf + (sum((new[name] - leaf) * scale for new in trained) + round) / members
            for name, leaf in params.items()
        }
        scale *= 2
        assert run.total("nonfinite", round) == (BROKEN in cohort)
    toy.assert_close(run.params, params, 1e-9)


def test_a_link_adds_numbers_of_its_own_to_a_message():
    """Algorithms and links of single names know nothing of them; their sums reach its release."""

    def encode(message, state, job, key):
        return {**message, "present": jnp.float64(job.client)}, state

    def release(sums, state, round, key):
        present = sums["present"]
        return {
            name: total._replace(sum=jax.tree.map(lambda leaf: leaf * present.sum, total.sum))
            for name, total in sums.items()
            if name != "present"
        }, state

    counting = UplinkLink(
        encode, lambda payload, state: payload, covers=None, adds=("present",), release=release
    )
    halved = UplinkLink(
        lambda value, state, job, key: (jax.tree.map(lambda leaf: leaf / 2, value), state),
        lambda payload, state: payload,
    )
    spec = algorithms.fedavg(0.2, weighting="uniform")
    run = harness.rounds(
        spec, COHORTS[:1], harness.MANY, pipeline=Pipeline(uplink=(counting, halved))
    )
    plain = harness.rounds(spec, COHORTS[:1])
    start, scale = toy.initial_params(), sum(COHORTS[0]) / 2
    expected = reference.combine(lambda x, new: x + scale * (new - x), start, plain.params)
    toy.assert_close(run.params, expected, 1e-9)
    assert set(run.by_client("uplink_bits", 0).values()) == {29 * 64}
