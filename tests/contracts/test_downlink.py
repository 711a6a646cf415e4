"""Transforms of the broadcast: clients train from what they receive, the server keeps the rest."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
import toy
from contracts import harness

from fljax import algorithms
from fljax.core.transforms import DownlinkLink, Pipeline

COHORTS = [[0, 1, 2, 3], [], [3, 4, 8], [5, 6, 7, 0, 4]]
GRID = 0.25


def coarse_with_memory():
    """Rounds the message to a grid and adds what was lost to the next one."""

    def apply(message, lost, key):
        total = jax.tree.map(jnp.add, message.params, lost)
        sent = jax.tree.map(lambda leaf: jnp.round(leaf / GRID) * GRID, total)
        return message._replace(params=sent), jax.tree.map(jnp.subtract, total, sent)

    return DownlinkLink(
        apply,
        bits=lambda message: jnp.uint32(8 * sum(x.size for x in jax.tree.leaves(message))),
        init=lambda params: jax.tree.map(jnp.zeros_like, params),
    )


@pytest.mark.parametrize("layout", harness.LAYOUTS)
def test_clients_train_from_the_message_they_receive(layout):
    params, lost = toy.initial_params(), reference.zeros(toy.initial_params())
    for cohort in COHORTS:
        total = reference.combine(np.add, params, lost)
        received = reference.combine(lambda leaf: np.round(leaf / GRID) * GRID, total)
        lost = reference.combine(np.subtract, total, received)
        present = [toy.clients()[c] for c in cohort if len(toy.clients()[c][1])]
        if present:
            trained = [reference.local_sgd(received, x, y, 0.2, 4, 1)[0] for x, y in present]
            mean = reference.weighted_mean(trained, [len(y) for _, y in present])
            change = reference.combine(np.subtract, mean, received)
            params = reference.combine(np.add, params, change)
    pipeline = Pipeline(downlink=(coarse_with_memory(),))
    run = harness.rounds(algorithms.fedavg(0.2), COHORTS, layout, pipeline=pipeline)
    toy.assert_close(run.params, params, 1e-9)
    kept = jax.tree.map(lambda leaf: leaf[0], run.states[-1].pipeline.downlink[0])
    toy.assert_close(kept, lost, 1e-9)
    for round in range(len(COHORTS)):
        assert set(run.by_client("downlink_bits", round).values()) <= {28 * 8}
