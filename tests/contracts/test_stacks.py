"""Transforms that need all updates at once: a median, colluding attackers, pairwise masks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
import toy
from contracts import harness
from contracts.harness import Layout

from fljax import algorithms
from fljax.core.transforms import Aggregator, CohortLink, Pipeline

# an empty client (1), a cohort without clients, one with an even number of them
COHORTS = [[0, 1, 2, 3, 8, 5], [], [7, 3, 6, 4]]
EIGHT = Layout(8, 2, 2)
NUM_PARAMS = toy.FEATURES * toy.CLASSES + toy.CLASSES


def local_changes(params, cohort, lr=0.2):
    """Returns ({client: change}, {client: rows}) of the clients that have rows."""
    changes, rows = {}, {}
    for client in cohort:
        x, y = toy.clients()[client]
        if len(y):
            trained, _, seen, _ = reference.local_sgd(params, x, y, lr, 4, 1)
            changes[client], rows[client] = reference.combine(np.subtract, trained, params), seen
    return changes, rows


def coordinate_median(widths):
    """Coordinate-wise median (Yin et al. 2018, arXiv:1803.01498); unweighted."""

    def apply(stack, cohort, state):
        widths.append(stack.shape[1])
        count = cohort.valid.sum()
        ordered = jnp.sort(jnp.where(cohort.valid[:, None], stack, jnp.inf), axis=0)
        low, high = ordered[(count - 1) // 2], ordered[count // 2]
        return (low + high) / 2, state

    return Aggregator(needs="stack", apply=apply)


@pytest.mark.parametrize("layout", [*harness.LAYOUTS, EIGHT])
def test_coordinate_wise_median(layout):
    params = toy.initial_params()
    for cohort in COHORTS:
        changes, _ = local_changes(params, cohort)
        if changes:
            median = reference.combine(
                lambda *leaves: np.median(np.stack(leaves), axis=0), *changes.values()
            )
            params = reference.combine(np.add, params, median)
    widths = []
    pipeline = Pipeline(aggregator=coordinate_median(widths))
    run = harness.rounds(algorithms.fedavg(0.2), COHORTS, layout, pipeline=pipeline)
    toy.assert_close(run.params, params, 1e-9)
    # each device holds its share of the parameters, not the whole stack
    assert set(widths) == {-(-NUM_PARAMS // layout.devices)}
    before, after = (run.states[round].server.variables for round in (0, 1))
    jax.tree.map(np.testing.assert_array_equal, before, after)


ATTACKERS = (0, 3, 6)


def collude():
    """Attackers replace their update by minus the mean of the honest ones."""

    def apply(stack, cohort, state, key):
        attack = jnp.isin(cohort.clients, jnp.array(ATTACKERS)) & cohort.valid
        honest = cohort.valid & ~attack
        mean = (stack * honest[:, None]).sum(0) / jnp.maximum(honest.sum(), 1)
        return jnp.where(attack[:, None], -mean, stack), cohort.clients

    return CohortLink(apply, init=lambda params: jnp.zeros(MAX_COHORT, jnp.int32))


def pairwise_masks():
    """Each pair of clients adds and subtracts one mask, which the weighted sum cancels."""

    def apply(stack, cohort, state, key):
        # every device masks its own share of the parameters
        key = jax.random.fold_in(key, jax.lax.axis_index(cohort.axis_name))
        size = len(cohort.clients)
        masks = jax.random.normal(key, (size, size, stack.shape[1]), stack.dtype)
        pairs = (cohort.valid[:, None] & cohort.valid[None])[..., None]
        masks = jnp.where(pairs, masks - masks.swapaxes(0, 1), 0).sum(1)
        masked = stack + masks / jnp.where(cohort.valid, cohort.weights, 1)[:, None]
        moved = jax.lax.psum(((masked - stack) ** 2).sum(1), cohort.axis_name)
        return masked, moved

    return CohortLink(apply, init=lambda params: jnp.zeros(MAX_COHORT, jnp.float64))


MAX_COHORT = max(map(len, COHORTS))


@pytest.mark.parametrize("layout", harness.LAYOUTS)
def test_colluding_attackers_under_pairwise_masks(layout):
    params = toy.initial_params()
    for cohort in COHORTS:
        changes, rows = local_changes(params, cohort)
        honest = [change for client, change in changes.items() if client not in ATTACKERS]
        if honest:
            mean = reference.weighted_mean(honest, [1] * len(honest))
            attack = reference.combine(np.negative, mean)
            sent = [attack if client in ATTACKERS else changes[client] for client in changes]
            mean = reference.weighted_mean(sent, list(rows.values()))
            params = reference.combine(np.add, params, mean)
    pipeline = Pipeline(cohort=(collude(), pairwise_masks()))
    run = harness.rounds(algorithms.fedavg(0.2), COHORTS, layout, pipeline=pipeline)
    toy.assert_close(run.params, params, 1e-9)
    for cohort, state in zip(COHORTS, run.states, strict=True):
        seen, moved = (leaf[0] for leaf in state.pipeline.cohort)
        # rows come in cohort order; whoever has no update is not there, and masks nobody
        present = [client if len(toy.clients()[client][1]) else -1 for client in cohort]
        assert seen.tolist() == present + [-1] * (MAX_COHORT - len(cohort))
        assert ((moved > 0.01) == (seen >= 0)).all()
