"""Clipped clustering against loops in NumPy, and clusters against scikit-learn's."""

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
from contracts import harness
from robustness import by_hand
from robustness import reference_distances as oracle
from robustness.harness import applied
from sklearn.cluster import AgglomerativeClustering

from fljax import algorithms
from fljax.core.transforms import Pipeline
from fljax.robustness.aggregators.clipped_clustering import clipped_clustering, larger_cluster

PLACES, SIZE = 11, 17
VALID = ~np.isin(np.arange(PLACES), [0, 4, 10])
HOSTILE = np.isin(np.arange(PLACES), [2, 3, 7])
RULE = clipped_clustering(history=25)


def updates(seed):
    """Returns a stack of two directions, of different lengths."""
    rng = np.random.default_rng(seed)
    stack = rng.standard_normal((PLACES, SIZE)) + 1
    stack[HOSTILE] -= 3
    return stack * rng.uniform(0.1, 3, (PLACES, 1))


def chosen(found, valid):
    return set(np.flatnonzero(valid & (found.reports["robustness/rejected"][0] == 0)).tolist())


@pytest.mark.parametrize("devices", [1, 2])
def test_it_is_what_the_paper_says_over_rounds(devices):
    state, past = None, []
    for seed, valid in enumerate((VALID, np.ones(PLACES, bool), ~VALID, VALID, VALID)):
        stack = updates(seed)
        found = applied(RULE, stack, valid, state=state, devices=devices, attackers=HOSTILE)
        value, rows, past = oracle.clipped_clustering(stack[valid], past, 25)
        np.testing.assert_allclose(found.value, value, rtol=1e-9)
        assert chosen(found, valid) == set(np.flatnonzero(valid)[list(rows)].tolist())
        state = found.state
        kept = state.values[: state.held]
        np.testing.assert_allclose(np.sort(kept), np.sort(past), rtol=1e-12)
    assert state.held == 25  # of 38, the latest


def test_order_does_not_matter():
    order = np.random.default_rng(2).permutation(PLACES)
    stack = updates(0)
    plain = applied(RULE, stack, VALID).value
    permuted = applied(RULE, stack[order], VALID[order]).value
    np.testing.assert_allclose(permuted, plain, rtol=1e-12)


def test_extremes():
    stack = updates(0)
    equal = applied(RULE, np.tile(stack[1], (PLACES, 1)), VALID)
    np.testing.assert_allclose(equal.value, stack[1], rtol=1e-12)
    assert not applied(RULE, np.zeros((PLACES, SIZE)), VALID).value.any()
    nobody = applied(RULE, stack, np.zeros(PLACES, bool))
    assert not nobody.value.any() and nobody.state.held == 0 == nobody.state.place
    alone = applied(RULE, stack, np.arange(PLACES) == 3)
    np.testing.assert_allclose(alone.value, stack[3], rtol=1e-12)
    # two clusters of one each: the first, clipped to the mean of both norms
    two = applied(RULE, stack, np.isin(np.arange(PLACES), [5, 8]))
    value, rows, _ = oracle.clipped_clustering(stack[[5, 8]], [])
    np.testing.assert_allclose(two.value, value, rtol=1e-9)
    assert rows == {0}


def test_float32_and_huge_updates():
    usual = updates(1).astype(np.float32)
    huge = np.where(HOSTILE[:, None], np.sign(usual) * np.float32(1e37), usual)
    values = [oracle.clipped_clustering(stack.astype(float), [])[0] for stack in (usual, huge)]
    with jax.enable_x64(False):
        for stack, value in zip((usual, huge), values, strict=True):
            found = applied(RULE, stack, attackers=HOSTILE)
            np.testing.assert_allclose(found.value, value, rtol=1e-5)
            assert found.reports["robustness/false_negatives"][0].sum() == 0


@hypothesis.given(seed=st.integers(0, 10**6), count=st.integers(2, PLACES))
@hypothesis.settings(max_examples=30)
def test_clusters_are_those_of_average_linkage(seed, count):
    rng = np.random.default_rng(seed)
    points = rng.standard_normal((PLACES, 3)) * rng.uniform(0.1, 2, (PLACES, 1))
    valid = rng.permutation(PLACES) < count
    distances = np.linalg.norm(points[:, None] - points[None], axis=2)
    found = np.asarray(CLUSTER(distances, valid))
    assert not found[~valid].any()
    model = AgglomerativeClustering(n_clusters=2, metric="precomputed", linkage="average")
    labels = model.fit(distances[np.ix_(valid, valid)]).labels_
    sizes = np.bincount(labels)
    expected = labels[0] if sizes[0] == sizes[1] else np.argmax(sizes)
    assert found[valid].tolist() == (labels == expected).tolist()


CLUSTER = jax.jit(larger_cluster)


def test_a_history_may_be_short():
    rule, state, past = clipped_clustering(history=5), None, []
    for seed in range(3):
        found = applied(rule, updates(seed), VALID, state=state)
        value, _, past = oracle.clipped_clustering(updates(seed)[VALID], past, 5)
        np.testing.assert_allclose(found.value, value, rtol=1e-9)
        state = found.state
    with pytest.raises(ValueError, match="history = 0 must be at least 1"):
        clipped_clustering(history=0)
    assert not RULE.weighs and RULE.init(jnp.zeros(3)).values.shape == (25,)
    assert clipped_clustering().init(None).values.shape == (10_000,)


@pytest.mark.parametrize("layout", harness.LAYOUTS)
def test_norms_cross_rounds(layout):
    def rule(rows, clients, weights, past):
        value, _, past = oracle.clipped_clustering(rows, past)
        return value, past

    params, past = by_hand.rounds(rule, [])
    pipeline = Pipeline(aggregator=clipped_clustering())
    run = harness.rounds(algorithms.fedavg(0.2), by_hand.COHORTS, layout, pipeline=pipeline)
    toy.assert_close(run.params, params, 1e-9)
    (held,) = run.states[-1].pipeline.aggregator.held
    np.testing.assert_allclose(run.states[-1].pipeline.aggregator.values[0, :held], past, rtol=1e-9)
