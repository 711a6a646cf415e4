"""CFL equals a NumPy loop over clients, and cuts where no other cut would be better."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
import toy

from fljax import algorithms
from fljax.algorithms.cfl import bipartition

pytestmark = pytest.mark.usefixtures("quick_compilation")

EVERYBODY = [[0, 2, 3, 4, 5, 6, 7, 8]] * 4 + [[0, 3, 8]]
LR = 0.2


@pytest.fixture(autouse=True)
def x64():
    with jax.enable_x64(True):
        yield


def best_cut(similarity, members):
    """Returns (the part without the first member, the greatest similarity across), of all cuts."""
    first, *others = members
    cuts = (
        set(part)
        for size in range(1, len(members))
        for part in itertools.combinations(others, size)
    )
    across = lambda part: max(  # noqa: E731
        similarity[i, j] for i in part for j in members if j not in part
    )
    best = min(cuts, key=across)
    return best, across(best)


@pytest.mark.parametrize("seed", range(8))
def test_no_cut_is_better(seed):
    generator = np.random.default_rng(seed)
    vectors = generator.standard_normal((9, 3))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    member = np.arange(9) != seed if seed % 2 else np.ones(9, bool)
    similarity = vectors @ vectors.T
    part, across = jax.jit(bipartition)(similarity, jnp.asarray(member))
    expected, greatest = best_cut(similarity, np.flatnonzero(member).tolist())
    assert set(np.flatnonzero(part)) == expected
    assert across == pytest.approx(greatest, rel=1e-12)


def loop(eps1, eps2, min_rounds, most):
    """Returns (models, assignment) after each round, as loops over clients."""
    models, assigned = [toy.initial_params()], np.zeros(9, int)
    updates, sizes, history = {}, {}, []
    for round, cohort in enumerate(EVERYBODY):
        changes = {}
        for client in cohort:
            x, y = toy.clients()[client]
            start = models[assigned[client]]
            trained = reference.local_sgd(start, x, y, LR, 4, 1)[0]
            changes[client] = reference.combine(np.subtract, trained, start)
            updates[client] = np.concatenate([changes[client]["b"], changes[client]["w"].ravel()])
            sizes[client] = len(y)
        for cluster in range(len(models)):
            own = [client for client in cohort if assigned[client] == cluster]
            if own:
                mean = reference.weighted_mean(
                    [changes[client] for client in own], [sizes[client] for client in own]
                )
                models[cluster] = reference.combine(np.add, models[cluster], mean)
        norms = {}
        for cluster in range(len(models)):
            own = [client for client in updates if assigned[client] == cluster]
            mean = np.average([updates[i] for i in own], axis=0, weights=[sizes[i] for i in own])
            largest = max(np.linalg.norm(updates[i]) for i in own)
            if np.linalg.norm(mean) < eps1 and largest > eps2 and len(own) > 2:
                norms[cluster] = largest
        if norms and round + 1 >= min_rounds and len(models) < most:
            cluster = max(norms, key=norms.get)
            own = sorted(client for client in updates if assigned[client] == cluster)
            unit = np.zeros((9, len(updates[0])))
            for i in own:
                unit[i] = updates[i] / np.linalg.norm(updates[i])
            part, _ = best_cut(unit @ unit.T, own)
            assigned = assigned.copy()
            assigned[list(part)] = len(models)
            models.append(models[cluster])
        history.append((list(models), assigned))
    return history


@pytest.mark.parametrize("seed", [0, 1])
def test_cfl(seed):
    spec = algorithms.cfl(9, 3, LR, eps1=10.0, eps2=0.01, min_rounds=2)
    federation, stats = toy.run_rounds(toy.clients(), spec, EVERYBODY, seed=seed)
    history = loop(10.0, 0.01, 2, 3)
    models, assigned = history[-1]
    assert len(models) == 3
    state = jax.tree.map(lambda leaf: np.asarray(leaf[0]), federation.state.server)
    assert int(state.clusters) == 3
    assert state.assigned.tolist() == assigned.tolist()
    for number, model in enumerate(models):
        got = jax.tree.map(lambda leaf, n=number: leaf[n], state.servers.variables.params)
        toy.assert_close(got, model, 1e-9)
    before = history[-2][1][EVERYBODY[-1]]
    counted = [int(stats[-1][-1][f"cluster_{number}"].sum()) for number in range(3)]
    assert counted == np.bincount(before, minlength=3).tolist()
    own = federation.algorithm.personalize(state, jnp.int32(8), None, None)
    toy.assert_close(jax.device_get(own.params), models[assigned[8]], 1e-9)


def test_without_a_cut_it_is_fedavg():
    spec = algorithms.cfl(9, 3, LR, eps1=0.0, eps2=0.01, min_rounds=2)
    federation, _ = toy.run_rounds(toy.clients(), spec, EVERYBODY)
    plain, _ = toy.run_rounds(toy.clients(), algorithms.fedavg(LR), EVERYBODY)
    toy.assert_close(toy.params_of(federation), toy.params_of(plain), 1e-12)
    parts_alike = algorithms.cfl(9, 3, LR, eps1=10.0, eps2=0.01, min_rounds=2, gamma_max=0.999)
    federation, _ = toy.run_rounds(toy.clients(), parts_alike, EVERYBODY)
    assert int(federation.state.server.clusters[0]) == 1


def test_clients_beyond_the_population_are_left_out_and_counted():
    spec = algorithms.cfl(8, 3, LR, eps1=0.0)
    federation, stats = toy.run_rounds(toy.clients(), spec, EVERYBODY[-1:])
    alone, _ = toy.run_rounds(toy.clients(), algorithms.fedavg(LR), [[0, 3]])
    toy.assert_close(toy.params_of(federation), toy.params_of(alone), 1e-12)
    assert stats[0][-1]["nonfinite"].sum() == 1
    with pytest.raises(ValueError, match="population = 4, and 8 clients may take part"):
        toy.run_rounds(toy.clients(), algorithms.cfl(4, 3, LR), EVERYBODY[-1:])
