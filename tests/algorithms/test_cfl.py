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

pytestmark = pytest.mark.usefixtures("quick_compilation", "weights_as_written")

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


def loop(eps1, eps2, min_rounds, most, gamma_max=0.0, parts=None):
    """Returns (models, assignment, clusters protected) after each round, as loops over clients."""
    models, assigned = [toy.initial_params()], np.zeros(9, int)
    updates, sizes, history = {}, {}, []
    for round, cohort in enumerate(EVERYBODY):
        changes = {}
        for client in cohort:
            x, y = (parts or toy.clients())[client]
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
        protected = []
        may_cut = round + 1 >= min_rounds and len(models) < most
        for cluster in sorted(norms, key=norms.get, reverse=True) if may_cut else ():
            own = sorted(client for client in updates if assigned[client] == cluster)
            unit = np.zeros((9, len(updates[0])))
            for i in own:
                unit[i] = updates[i] / np.linalg.norm(updates[i])
            part, across = best_cut(unit @ unit.T, own)
            if np.sqrt((1 - min(across, 1)) / 2) <= gamma_max:
                protected.append(cluster)
                continue
            assigned = assigned.copy()
            assigned[list(part)] = len(models)
            models.append(models[cluster])
            break
        history.append((list(models), assigned, protected))
    return history


@pytest.mark.parametrize("seed", [0, 1])
def test_cfl(seed):
    spec = algorithms.cfl(3, LR, eps1=10.0, eps2=0.01, min_rounds=2)
    federation, stats = toy.run_rounds(toy.clients(), spec, EVERYBODY, seed=seed)
    history = loop(10.0, 0.01, 2, 3)
    models, assigned, _ = history[-1]
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
    own = personal(federation, state, 8, *toy.clients()[0])
    toy.assert_close(own, models[assigned[8]], 1e-9)


def personal(federation, state, number, x, y):
    """Returns the parameters of a client's own model."""
    batch = {"x": jnp.asarray(x), "y": jnp.asarray(y), "mask": jnp.ones(len(y), bool)}
    personalize = jax.jit(federation.algorithm.personalize)
    return jax.device_get(personalize(state, jnp.int32(number), batch, None).params)


def test_a_cluster_that_may_not_be_cut_keeps_no_other_from_being_cut():
    parts = toy.clients(seed=21)
    spec = algorithms.cfl(5, LR, eps1=10.0, eps2=0.01, min_rounds=1, gamma_max=0.58)
    federation, _ = toy.run_rounds(parts, spec, EVERYBODY)
    history = loop(10.0, 0.01, 1, 5, 0.58, parts)
    counts = [1, *(len(models) for models, _, _ in history)]
    protected = [len(protected) for _, _, protected in history]
    assert (np.diff(counts) * protected).any()
    state = jax.tree.map(lambda leaf: np.asarray(leaf[0]), federation.state.server)
    assert state.assigned.tolist() == history[-1][1].tolist()
    assert int(state.clusters) == counts[-1]


def test_who_is_in_no_cluster_uses_the_model_that_fits_their_rows():
    """Whoever is the last of the population, and however far beyond it the number lies."""
    spec = algorithms.cfl(4, LR, eps1=10.0, eps2=0.01, min_rounds=1)
    federation, _ = toy.run_rounds(toy.clients(), spec, EVERYBODY[:2])
    models = loop(10.0, 0.01, 1, 4)[1][0]
    assert len(models) == 3
    state = jax.tree.map(lambda leaf: leaf[0], federation.state.server)
    x = np.random.default_rng(0).standard_normal((50, toy.FEATURES))
    for place, model in enumerate(models):
        # what is no cluster's fits best, and is not taken
        surer = jax.tree.map(lambda leaf, n=place: leaf.at[3].set(100 * leaf[n]), state.servers)
        unused = state._replace(servers=surer)
        y = (x @ model["w"] + model["b"]).argmax(1).astype(np.int32)
        best = np.argmin([reference.loss_and_gradient(other, x, y)[0] for other in models])
        for number in (-1, 9, 12, 50):
            toy.assert_close(personal(federation, unused, number, x, y), models[best], 1e-9)
            assert int(federation.algorithm.cluster(state, jnp.int32(number))) == -1
    nobody = {"x": x, "y": y, "mask": np.zeros(50, bool)}
    own = jax.jit(federation.algorithm.personalize)(state, jnp.int32(9), nobody, None)
    toy.assert_close(jax.device_get(own.params), toy.params_of(federation), 1e-12)


def test_without_a_cut_it_is_fedavg():
    spec = algorithms.cfl(3, LR, eps1=0.0, eps2=0.01, min_rounds=2)
    federation, _ = toy.run_rounds(toy.clients(), spec, EVERYBODY)
    plain, _ = toy.run_rounds(toy.clients(), algorithms.fedavg(LR), EVERYBODY)
    toy.assert_close(toy.params_of(federation), toy.params_of(plain), 1e-12)
    parts_alike = algorithms.cfl(3, LR, eps1=10.0, eps2=0.01, min_rounds=2, gamma_max=0.999)
    federation, _ = toy.run_rounds(toy.clients(), parts_alike, EVERYBODY)
    assert int(federation.state.server.clusters[0]) == 1
