"""Contributions whose weight differs from parameter to parameter: clients that train sub-models."""

import jax.numpy as jnp
import numpy as np
import pytest
import reference
import toy
from contracts import harness

from fljax import algorithms
from fljax.core.algorithm import Contribution
from fljax.core.transforms import Aggregator, Pipeline

# in the last round nobody trains the biases
COHORTS = [[0, 1, 2, 3], [3, 4, 8, 7, 5], [0, 2, 6]]
LR = 0.2


def width(client):
    """Even clients train the first half of the features and no biases, odd ones everything."""
    return toy.FEATURES // 2 if client % 2 == 0 else toy.FEATURES


def submodels():
    """FedAvg, with HeteroFL's average (Diao et al. 2021, arXiv:2010.01264) of what was trained."""
    whole = algorithms.fedavg(LR)

    def build(task, hp):
        algorithm = whole.build(task, hp)
        local = algorithm.passes[0]

        def finish(message, carry, job):
            sent, client_state, stats = local.finish(message, carry, job)
            value, rows, *_ = sent["update"]
            half = job.client % 2 == 0
            trained = jnp.arange(toy.FEATURES) < jnp.where(half, toy.FEATURES // 2, toy.FEATURES)
            weight = {
                "w": jnp.broadcast_to(rows * trained[:, None], value["w"].shape),
                "b": jnp.where(half, 0, rows),
            }
            return sent | {"update": Contribution(value, weight)}, client_state, stats

        return algorithm._replace(passes=(local._replace(finish=finish),))

    return whole._replace(name="submodels", build=build)


def submodels_reference(params):
    for cohort in COHORTS:
        sums, weights = reference.zeros(params), reference.zeros(params)
        for client in cohort:
            x, y = toy.clients()[client]
            if not len(y):
                continue
            trained = reference.local_sgd(params, x, y, LR, 4, 1)[0]
            size = width(client)
            sums["w"][:size] += len(y) * (trained["w"] - params["w"])[:size]
            weights["w"][:size] += len(y)
            if size == toy.FEATURES:
                sums["b"] += len(y) * (trained["b"] - params["b"])
                weights["b"] += len(y)
        mean = reference.combine(lambda s, w: s / np.where(w == 0, 1, w), sums, weights)
        params = reference.combine(np.add, params, mean)
    return params


@pytest.mark.parametrize("layout", harness.LAYOUTS)
def test_parameters_are_averaged_over_those_who_trained_them(layout):
    run = harness.rounds(submodels(), COHORTS, layout)
    toy.assert_close(run.params, submodels_reference(toy.initial_params()), 1e-9)
    before, after = (run.states[round].server.variables.params for round in (1, 2))
    np.testing.assert_array_equal(before["b"], after["b"])
    assert (before["w"] != after["w"]).any()


def test_a_stack_of_submodels_is_refused():
    first = Aggregator(needs="stack", apply=lambda stack, cohort, state: (stack[0], state))
    with pytest.raises(ValueError, match="weight"):
        harness.rounds(submodels(), COHORTS, pipeline=Pipeline(aggregator=first))
