"""Mimicking colluders against loops in NumPy: whom they copy, and what they learn over rounds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
from contracts import harness
from robustness import by_hand
from robustness import reference_messages as oracle
from robustness.harness import attacked

from fljax import algorithms
from fljax.core.transforms import Pipeline
from fljax.engine.plan.round_plan import job_table
from fljax.engine.program.keys import COHORT
from fljax.robustness.attackers import by_client
from fljax.robustness.attacks.mimic import mimic
from fljax.training.hyperparameters import hyperparameters
from fljax.training.trials import TrialInputs

P, D = 7, 11
CLIENTS = np.arange(10, 10 + P)
HOSTILE = np.array([False, True, False, False, True, False, False])
LINK = mimic(warmup=3).cohort[0]
VALID = np.array([True, True, False, True, True, True, True])


def updates(round):
    """Updates whose clients differ, most along one direction."""
    generator = np.random.default_rng(round)
    own = np.random.default_rng(100).standard_normal((P, D)) * np.linspace(0.2, 3, D)
    return own + 0.5 * generator.standard_normal((P, D))


@pytest.mark.parametrize("devices", [1, 3])
def test_they_copy_whom_the_authors_code_copies(devices):
    keys = [jax.random.key(round) for round in range(6)]
    reference = oracle.Mimic(3, np.asarray(jax.random.normal(keys[0], D, float)))
    state, copied = None, []
    order = np.random.default_rng(5).permutation(P)
    for round, key in enumerate(keys):
        stack, hostile, valid, clients = updates(round), HOSTILE, np.ones(P, bool), CLIENTS
        if round == 1:  # the order of a cohort does not matter, nor who is missing
            stack, hostile, valid = stack[order], hostile[order], VALID[order]
            clients = clients[order]
        if round == 4:  # the one they copy is not there
            valid = clients != reference.target
        if round >= 4:  # the one they copy is now the last along their direction
            stack = -stack
        found = attacked(
            LINK, stack, hostile, valid, devices=devices, state=state, clients=clients, key=key
        )
        honest = valid & ~hostile
        wanted = np.where(valid[:, None], stack, 0)
        wanted[valid & hostile] = reference.copied(list(stack[honest]), list(clients[honest]))
        np.testing.assert_array_equal(found.stack, wanted)
        state = jax.tree.map(jnp.asarray, found.state)
        copied.append(int(state.target))
        assert int(state.rounds) == reference.t and copied[-1] == reference.target
        np.testing.assert_allclose(state.direction, reference.z, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(state.mean, reference.mean, rtol=1e-9, atol=1e-12)
    assert len(set(copied[2:])) == 1


def test_rounds_that_teach_nothing():
    stack = updates(0)
    after = attacked(LINK, stack, HOSTILE, clients=CLIENTS).state
    before = jax.tree.map(jnp.asarray, after)
    for hostile in (np.zeros(P, bool), np.ones(P, bool)):
        found = attacked(LINK, stack, hostile, clients=CLIENTS, state=before)
        np.testing.assert_array_equal(found.stack, stack)
        jax.tree.map(np.testing.assert_array_equal, found.state, after)
    # equal updates, or one: there is no direction, but the mean is known
    for valid in (np.ones(P, bool), np.arange(P) < 2):
        equal = attacked(LINK, np.ones((P, D)), HOSTILE, valid, clients=CLIENTS)
        np.testing.assert_array_equal(equal.stack[valid], np.ones((valid.sum(), D)))
        assert int(equal.state.target) == CLIENTS[0]
        np.testing.assert_allclose(np.linalg.norm(equal.state.direction), 1)


def test_float32_of_any_size_and_a_traced_warmup():
    scores = updates(0)
    for scale in (1e-25, 1e-12, 1.0, 1e12):
        with jax.enable_x64(False):
            found = attacked(LINK, np.float32(scale * scores), HOSTILE, clients=CLIENTS)
            first = np.asarray(jax.random.normal(jax.random.key(0), D))
        reference = oracle.Mimic(3, first.astype(float))
        reference.copied(list(scores[~HOSTILE]), list(CLIENTS[~HOSTILE]))
        assert int(found.state.target) == reference.target
        np.testing.assert_allclose(found.state.direction, reference.z, atol=1e-5)
    state = jax.tree.map(jnp.asarray, found.state)
    for warmup, rounds in ((1, 1), (2, 2)):
        again = attacked(
            lambda **numbers: mimic(**numbers).cohort[0], np.float64(scores), HOSTILE,
            clients=CLIENTS, state=jax.tree.map(lambda x: x.astype(float), state)._replace(
                rounds=jnp.int32(1), target=state.target
            ),
            traced={"warmup": warmup},
        )  # fmt: skip
        assert int(again.state.rounds) == rounds


@pytest.mark.parametrize("warmup", [0, 1.5, "long"])
def test_wrong_warmups_are_refused(warmup):
    with pytest.raises(ValueError, match="warmup = "):
        mimic(warmup)


# the client that is copied is not always there; a round without attackers, and one without clients
COHORTS = ([[0, 2, 3, 8, 5], [7, 3, 6, 5], [], [2, 8], [8, 3, 6, 0, 5, 2]],
           [[6, 3, 7], [0, 2, 3, 8], [5, 0, 7], [7, 3], [7, 0, 5]])  # fmt: skip
SEEDS, ATTACKERS = (0, 7), (0, 3)


def first_direction(seed):
    """Returns what colluders of a trial draw in round 0, pass 0, as the only link of the cohort."""
    key = jax.random.key(seed)
    for word in (0, 0, COHORT, 0):
        key = jax.random.fold_in(key, word)
    return np.asarray(jax.random.normal(key, by_hand.NUM_PARAMS, float))


def by_loops(trial):
    """Returns (parameters, Mimic) of a trial."""

    def rule(rows, clients, weights, mimicking):
        hostile = np.isin(clients, ATTACKERS)
        if hostile.any():
            honest = ~hostile
            rows = rows.copy()
            rows[hostile] = mimicking.copied(list(rows[honest]), list(np.array(clients)[honest]))
        return np.average(rows, axis=0, weights=weights), mimicking

    mimicking = oracle.Mimic(2, first_direction(SEEDS[trial]))
    return by_hand.rounds(rule, mimicking, COHORTS[trial])


@pytest.mark.parametrize("layout", harness.LAYOUTS)
def test_rounds_of_several_trials(layout):
    spec = algorithms.fedavg(0.2)
    attack = mimic(warmup=2)
    pipeline = Pipeline(cohort=attack.cohort, attackers=by_client(ATTACKERS))
    tables = [
        job_table(first + second, trial=[0] * len(first) + [1] * len(second))
        for first, second in zip(*COHORTS, strict=True)
    ]
    inputs = [TrialInputs(seed, hyperparameters(spec, pipeline)) for seed in SEEDS]
    run = harness.rounds(spec, tables, layout, pipeline=pipeline, trials=inputs)
    (watched,) = run.states[-1].pipeline.cohort
    for trial in range(2):
        params, mimicking = by_loops(trial)
        of_trial = jax.tree.map(lambda leaf, n=trial: leaf[n], run.states[-1].server.variables)
        toy.assert_close(of_trial.params, params, 1e-9)
        assert watched.rounds[trial] == 2 and watched.target[trial] == mimicking.target
        np.testing.assert_allclose(watched.direction[trial], mimicking.z, rtol=1e-9, atol=1e-12)
