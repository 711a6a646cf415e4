"""Optimal sampling against loops in float64: its probabilities, its estimate, its identities."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
import toy
from contracts import harness
from hypothesis import given, settings
from hypothesis import strategies as st
from selection import reference_selection

from fljax import algorithms
from fljax.algorithms.optimal_sampling import (
    adjusted_probabilities,
    optimal_probabilities,
    sampling,
)
from fljax.engine.plan.round_plan import job_table

# an empty client (1), one that is lost (3), and a cohort without clients
COHORTS = [[0, 1, 2, 3, 8, 5, 6], [], [7, 3, 6, 4, 0]]
LOST, LR, SERVER_LR = 3, 0.2, 0.9
TABLES = [job_table(cohort, accepted=np.array(cohort) != LOST) for cohort in COHORTS]


@pytest.fixture
def x64(quick_compilation, weights_as_written):
    with jax.enable_x64(True):
        yield


def adjusted(norms, count, times):
    """AOCS, Algorithm 2 of the paper, number by number."""
    total, chances = sum(norms), []
    for norm in norms:
        chances.append(min(count * norm / total, 1.0))
    for _ in range(times):
        below = [i for i, chance in enumerate(chances) if chance < 1]
        mass = sum(chances[i] for i in below)
        if not mass:
            break
        factor = (count - len(norms) + len(below)) / mass
        for i in below:
            chances[i] = min(factor * chances[i], 1.0)
    return np.array(chances)


PLACES = 12
# one program each, for all cases
OPTIMAL = jax.jit(optimal_probabilities)
ADJUSTED = jax.jit(adjusted_probabilities, static_argnums=3)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=PLACES), st.data())
@settings(max_examples=40, deadline=None)
def test_probabilities_are_those_of_the_paper(norms, data):
    count = data.draw(st.integers(1, len(norms)))
    with jax.enable_x64(True):
        padded = jnp.zeros(PLACES).at[: len(norms)].set(np.array(norms, float))
        arrived = jnp.arange(PLACES) < len(norms)
        found = [
            np.asarray(chances)[: len(norms)]
            for chances in (
                OPTIMAL(padded, arrived, float(count)),
                ADJUSTED(padded, arrived, float(count), 2),
                ADJUSTED(padded, arrived, float(count), PLACES),
            )
        ]
    expected = reference_selection.inclusion(norms, count)
    np.testing.assert_allclose(found[0], expected, atol=1e-12)
    np.testing.assert_allclose(found[1], adjusted(norms, count, 2), atol=1e-12)
    np.testing.assert_allclose(found[2], expected, atol=1e-12)


def test_no_other_probabilities_have_less_variance():
    """The variance is sum u^2 (1 / p - 1), over all p with this sum."""
    rng = np.random.default_rng(0)
    norms = rng.lognormal(0, 1.5, PLACES)
    with jax.enable_x64(True):
        best = np.asarray(OPTIMAL(jnp.array(norms), jnp.ones(PLACES, bool), 4.0))
    variance = np.sum(norms**2 * (1 / best - 1))
    for _ in range(200):
        other = reference_selection.inclusion(norms * rng.lognormal(0, 0.3, PLACES), 4)
        assert np.sum(norms**2 * (1 / other - 1)) >= variance * (1 - 1e-12)


def updates_of(params, cohort, weighting):
    """Returns {client: (weight, update)} of those that have rows and arrive."""
    found = {}
    for client in cohort:
        x, y = toy.clients()[client]
        if len(y) and client != LOST:
            trained, *_ = reference.local_sgd(params, x, y, LR, 4, 1)
            weight = reference.weight_of(weighting, client, len(y))
            found[client] = weight, reference.combine(np.subtract, trained, params)
    return found


@pytest.mark.parametrize(
    ("layout", "weighting", "adjustments"),
    [
        (harness.ONE, "examples", None),
        (harness.MANY, "examples", None),
        (harness.MANY, "uniform", 1),
    ],
)
def test_what_is_sent_counts_by_its_probability(layout, weighting, adjustments, x64):
    spec = algorithms.optimal_sampling(
        2.5, LR, SERVER_LR, weighting=weighting, adjustments=adjustments
    )
    run = harness.rounds(spec, TABLES, layout)
    params = toy.initial_params()
    for round, cohort in enumerate(COHORTS):
        updates = updates_of(params, cohort, weighting)
        if not updates:
            continue
        norms = [
            weight * np.sqrt(sum(np.square(leaf).sum() for leaf in update.values()))
            for weight, update in updates.values()
        ]
        if adjustments is None:
            chances = reference_selection.inclusion(norms, 2.5)
        else:
            chances = adjusted(norms, 2.5, adjustments)
        sent = run.by_client("jobs", round)
        total = sum(weight for weight, _ in updates.values())
        for (client, (weight, update)), chance in zip(updates.items(), chances, strict=True):
            if sent[client]:
                step = SERVER_LR * weight / total / chance
                params = reference.combine(lambda p, d, s=step: p + s * d, params, update)
        bits = run.by_client("uplink_bits", round)
        assert all((bits[client] > 0) == bool(sent[client]) for client in updates)
    assert sum(run.total("jobs", round) for round in range(3)) > 2
    toy.assert_close(run.params, params, 1e-9)


def test_clients_send_as_often_as_their_probability_says(x64):
    """At a rate that leaves the model where it is, so that probabilities stay."""
    cohort, rounds = [0, 2, 5, 6, 7, 8], 300
    spec = algorithms.optimal_sampling(2, 1e-9)
    run = harness.rounds(spec, [cohort] * rounds, harness.Layout(1, 2, 4))
    params, norms = toy.initial_params(), []
    for client in cohort:
        x, y = toy.clients()[client]
        trained, *_ = reference.local_sgd(params, x, y, 1e-9, 4, 1)
        change = reference.combine(np.subtract, trained, params)
        norms.append(len(y) * np.sqrt(sum(np.square(leaf).sum() for leaf in change.values())))
    chances = reference_selection.inclusion(norms, 2)
    sent = [run.by_client("jobs", round) for round in range(rounds)]
    counts = np.array([sum(each[client] for each in sent) for client in cohort])
    spread = np.sqrt(rounds * chances * (1 - chances))
    assert (np.abs(counts - rounds * chances) <= 4 * spread + 1e-9).all()
    sizes = np.array([sum(each.values()) for each in sent])
    variance = np.sum(chances * (1 - chances))  # each on its own
    assert abs(sizes.var() - variance) < 4 * variance * np.sqrt(2 / rounds)


@pytest.mark.parametrize("adjustments", [None, 4])
def test_where_all_may_send_it_is_the_algorithm_itself(adjustments, x64):
    plain = harness.rounds(algorithms.fedprox(0.1, LR), TABLES, harness.MANY)
    spec = sampling(algorithms.fedprox(0.1, LR), 7, adjustments)
    whole = harness.rounds(spec, TABLES, harness.MANY)
    jax.tree.map(np.testing.assert_array_equal, whole.params, plain.params)


def test_arguments_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="chosen = 0.5"):
        algorithms.optimal_sampling(0.5)
    with pytest.raises(ValueError, match="adjustments = -1"):
        algorithms.optimal_sampling(2, adjustments=-1)
