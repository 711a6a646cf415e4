"""Transforms of the aggregate that keep a state, one after another."""

import jax
import jax.numpy as jnp
import numpy as np
import reference
import toy
from contracts import harness

from fljax import algorithms
from fljax.core.transforms import Pipeline, ServerLink

COHORTS = [[0, 1, 2, 3], [3, 4, 8], [5, 6, 7, 0, 4]]


def counted_noise(scale):
    """Adds noise to the mean; the state counts the additions and keeps the last one."""

    def apply(aggregate, state, round, key):
        count, _ = state
        leaves, treedef = jax.tree.flatten(aggregate.sum)
        keys = jax.random.split(key, len(leaves))
        noise = treedef.unflatten(
            scale * jax.random.normal(key_of_leaf, leaf.shape, leaf.dtype)
            for key_of_leaf, leaf in zip(keys, leaves, strict=True)
        )
        noisy = jax.tree.map(lambda x, n: x + n * aggregate.weight, aggregate.sum, noise)
        return aggregate._replace(sum=noisy), (count + 1, noise)

    return ServerLink(apply, lambda params: (jnp.int32(0), jax.tree.map(jnp.zeros_like, params)))


def running_mean():
    """Replaces the aggregate by the mean of all aggregates so far."""

    def apply(aggregate, state, round, key):
        state = jax.tree.map(
            lambda old, new: old + (new - old) / (round + 1), state, aggregate.mean()
        )
        smooth = jax.tree.map(lambda mean: mean * aggregate.weight, state)
        return aggregate._replace(sum=smooth), state

    return ServerLink(apply, lambda params: jax.tree.map(jnp.zeros_like, params))


def test_links_with_state_compose_in_order():
    pipeline = Pipeline(server=(counted_noise(0.1), running_mean()))
    runs = [
        harness.rounds(algorithms.fedavg(0.2), COHORTS, layout, pipeline=pipeline)
        for layout in harness.LAYOUTS
    ]
    noises = [jax.tree.map(lambda leaf: leaf[0], s.pipeline.server[0]) for s in runs[0].states]
    assert [int(count) for count, _ in noises] == [1, 2, 3]
    drawn = np.stack([noise["w"] for _, noise in noises])
    assert len(np.unique(drawn)) == drawn.size
    np.testing.assert_allclose(drawn.std(), 0.1, rtol=0.3)

    params, mean = toy.initial_params(), reference.zeros(toy.initial_params())
    for round, cohort in enumerate(COHORTS):
        new, _ = reference.federated(params, toy.clients(), [cohort], lr=0.2, batch_size=4)
        change = reference.combine(lambda a, b, noise: a - b + noise, new, params, noises[round][1])
        mean = reference.combine(lambda old, d, n=round: (old * n + d) / (n + 1), mean, change)
        params = reference.combine(np.add, params, mean)
    for run in runs:
        toy.assert_close(run.params, params, 1e-9)
        jax.tree.map(np.testing.assert_array_equal, run.states[-1].pipeline.server[0][1],
                     runs[0].states[-1].pipeline.server[0][1])  # fmt: skip
