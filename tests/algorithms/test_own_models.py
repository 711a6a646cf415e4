"""Algorithms whose clients have models of their own equal float64 NumPy loops over clients."""

import functools

import jax
import jax.numpy as jnp
import nets
import numpy as np
import pytest
import reference
import toy

import fljax
from fljax import algorithms

pytestmark = pytest.mark.usefixtures("quick_compilation", "weights_as_written")

# ragged cohorts with an empty client (1), one of a single row (4), and an empty cohort
COHORTS = [[0, 1, 2, 3], [3, 4, 8], [], [5, 6, 7, 0, 4]]
LR, EPOCHS, BATCH = 0.2, 2, 4


@pytest.fixture(autouse=True)
def x64():
    with jax.enable_x64(True):
        yield


def tree(function, *trees):
    return reference.combine(function, *trees)


def batches(x, y, epochs=EPOCHS):
    return reference.batches(x, y, BATCH, epochs)


def gradient(params, batch):
    x, y = batch
    return reference.loss_and_gradient(params, x, y)[1]


def moved(params, direction, distance):
    return tree(lambda p, d: p + distance * d, params, direction)


def loop(local, seed=0, *, server_lr=1.0, weighting="examples", start=lambda params: params):
    """Returns (global parameters, {client: own state}) after the rounds.

    Args:
      local: (w, own, x, y) -> (w_i, own').
      start: (initial parameters) -> own state of a client before it takes part.
    """
    params, clients = toy.initial_params(), toy.clients(seed=seed)
    own = {client: start(params) for client in range(len(clients))}
    for cohort in COHORTS:
        changes, weights = [], []
        for client in cohort:
            x, y = clients[client]
            if len(y):
                trained, own[client] = local(params, own[client], x, y)
                changes.append(tree(np.subtract, trained, params))
                weights.append(reference.weight_of(weighting, client, len(y)))
        if changes:
            mean = reference.weighted_mean(changes, weights)
            params = moved(params, mean, server_lr)
    return params, own


def run(spec, seed=0, **options):
    federation, stats = toy.run_rounds(
        toy.clients(seed=seed), spec, COHORTS, **({"local_epochs": EPOCHS} | options)
    )
    return federation, stats


@functools.cache
def plain(name):
    return run(algorithms.make(name, client_lr=LR))


def states_of(federation):
    """Returns the client state of each client."""
    rows = jax.device_get(federation.store.rows_of(np.arange(len(toy.SIZES))).algorithm)
    return [jax.tree.map(lambda leaf, i=client: leaf[i], rows) for client in range(len(toy.SIZES))]


def check(federation, expected, own, state=lambda state: state.params):
    toy.assert_close(toy.params_of(federation), expected, 1e-9)
    for client, mine in enumerate(states_of(federation)):
        toy.assert_close(state(mine), own[client], 1e-9)


def own_model(federation, client, seed=0):
    """Returns what `personalize` makes of a client's rows."""
    x, y = toy.clients(seed=seed)[client]
    batch = {"x": jnp.asarray(x), "y": jnp.asarray(y), "mask": jnp.ones(len(y), bool)}
    server = jax.tree.map(lambda leaf: leaf[0], federation.state.server)
    state = jax.tree.map(jnp.asarray, states_of(federation)[client])
    personalize = jax.jit(federation.algorithm.personalize)
    made = personalize(server, state, batch, jax.random.key(0))
    return jax.device_get(made.params)


def sgd(params, x, y, pull=0.0, towards=None, epochs=EPOCHS):
    for batch in batches(x, y, epochs):
        step = gradient(params, batch)
        if pull:
            step = tree(lambda g, p, w: g + pull * (p - w), step, params, towards)
        params = moved(params, step, -LR)
    return params


@pytest.mark.parametrize(("epochs", "seed"), [(None, 0), (3, 1)])
def test_ditto(epochs, seed):
    def local(w, own, x, y):
        return sgd(w, x, y), sgd(own, x, y, 0.6, w, epochs or EPOCHS)

    expected, own = loop(local, seed, server_lr=0.9)
    spec = algorithms.ditto(0.6, LR, 0.9, personal_epochs=epochs)
    federation, _ = run(spec, seed)
    check(federation, expected, own)
    toy.assert_close(own_model(federation, 3, seed), own[3], 1e-9)


def test_ditto_without_pull_is_fedavg_beside_local_only():
    federation, stats = run(algorithms.ditto(0.0, LR))
    (shared, shared_stats), (alone, alone_stats) = plain("fedavg"), plain("local_only")
    toy.assert_close(toy.params_of(federation), toy.params_of(shared), 1e-14)
    for mine, theirs in zip(states_of(federation), states_of(alone), strict=True):
        toy.assert_close(mine.params, theirs.params, 1e-14)
    for mine, of_shared, of_alone in zip(stats, shared_stats, alone_stats, strict=True):
        np.testing.assert_allclose(mine[-1]["loss"], of_shared[-1]["loss"], rtol=1e-12)
        np.testing.assert_allclose(mine[0]["personal_loss"], of_alone[-1]["loss"], rtol=1e-12)


@pytest.mark.parametrize(("adaptive", "seed"), [(False, 0), (True, 1)])
def test_apfl(adaptive, seed):
    def local(w, own, x, y):
        v, share = own
        for step, batch in enumerate(batches(x, y)):
            mixture = tree(lambda v, w, a=share: a * v + (1 - a) * w, v, w)
            of_mixture, of_shared, used = gradient(mixture, batch), gradient(w, batch), share
            if adaptive and step == 0:
                slope = sum(np.sum((v[name] - w[name]) * of_mixture[name]) for name in v)
                share = min(max(share - LR * slope, 0.0), 1.0)
            v, w = moved(v, of_mixture, -LR * used), moved(w, of_shared, -LR)
        return w, (v, share)

    expected, own = loop(local, seed, start=lambda params: (params, 0.4))
    federation, _ = run(algorithms.apfl(0.4, LR, adaptive_mixture=adaptive), seed)
    check(federation, expected, {client: v for client, (v, _) in own.items()})
    shares = [float(state.share) for state in states_of(federation)]
    shares = [0.4 if share == -1 else share for share in shares]
    np.testing.assert_allclose(shares, [share for _, share in own.values()], rtol=1e-9)
    assert (len(set(shares)) > 1) == adaptive
    v, share = own[3]
    mixture = tree(lambda v, w: share * v + (1 - share) * w, v, expected)
    toy.assert_close(own_model(federation, 3, seed), mixture, 1e-9)


def test_apfl_without_mixture_is_fedavg_and_with_nothing_else_local_only():
    none, _ = run(algorithms.apfl(0.0, LR, adaptive_mixture=False))
    all_own, _ = run(algorithms.apfl(1.0, LR, adaptive_mixture=False))
    (shared, _), (alone, _) = plain("fedavg"), plain("local_only")
    toy.assert_close(own_model(none, 3), toy.params_of(shared), 1e-14)
    toy.assert_close(own_model(all_own, 3), states_of(alone)[3].params, 1e-14)


def test_pfedme():
    lam, inner_lr, steps = 3.0, 0.05, 3

    def local(w, own, x, y):
        theta = w
        for batch in batches(x, y):
            for _ in range(steps):
                pull = tree(lambda t, w: lam * (t - w), theta, w)
                theta = moved(theta, tree(np.add, gradient(theta, batch), pull), -inner_lr)
            w = tree(lambda w, t: w - LR * lam * (w - t), w, theta)
        return w, theta

    expected, own = loop(local, server_lr=0.8, weighting="uniform")
    spec = algorithms.pfedme(lam, LR, 0.8, inner_lr=inner_lr, inner_steps=steps)
    federation, _ = run(spec)
    check(federation, expected, own)
    toy.assert_close(own_model(federation, 3), own[3], 1e-9)


@pytest.mark.parametrize(("hessian", "seed"), [("first_order", 0), ("hessian_free", 1)])
def test_per_fedavg(hessian, seed):
    inner_lr, distance = 0.3, 1e-2
    parts = 2 if hessian == "first_order" else 3

    def local(w, own, x, y):
        for of_x, of_y in batches(x, y):
            if len(of_y) < parts:
                continue
            first, second, *third = [(of_x[n::parts], of_y[n::parts]) for n in range(parts)]
            step = gradient(moved(w, gradient(w, first), -inner_lr), second)
            if third:
                ahead, behind = (
                    gradient(moved(w, step, side * distance), *third) for side in (1, -1)
                )
                product = tree(lambda a, b: (a - b) / (2 * distance), ahead, behind)
                step = moved(step, product, -inner_lr)
            w = moved(w, step, -LR)
        return w, None

    expected, _ = loop(local, seed)
    own = {"hessian_step": distance} if parts == 3 else {}
    spec = algorithms.per_fedavg(inner_lr, LR, hessian=hessian, **own)
    federation, _ = run(spec, seed)
    toy.assert_close(toy.params_of(federation), expected, 1e-9)
    step = gradient(expected, toy.clients(seed=seed)[3])
    toy.assert_close(own_model(federation, 3, seed), moved(expected, step, -inner_lr), 1e-9)


def test_parts_without_rows_leave_statistics_alone():
    """Of no rows there is no mean: a model with BatchNorm stays finite."""
    with jax.enable_x64(False):
        parts = [(x[:, : nets.FEATURES], y) for x, y in toy.clients(dtype=np.float32)]
        dataset = toy.dataset(parts, nets.CLASSES).with_validation(0.3)
        spec = algorithms.per_fedavg(0.1, LR, hessian="hessian_free", hessian_step=1e-2)
        found = fljax.simulate(
            dataset, nets.Net, spec, num_rounds=2, clients_per_round=9, batch_size=4, devices=1,
            eval_personal=-1, progress=False,
        )  # fmt: skip
    assert not found.curves["train/clients_nonfinite"][1:].any()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found.variables))
    assert np.isfinite(found.client_metrics["personal/loss"]).all()


def test_what_own_models_cannot_be_is_refused():
    with pytest.raises(ValueError, match="mixture = 1.5"):
        algorithms.apfl(1.5)
    with pytest.raises(ValueError, match="lam = -1"):
        algorithms.ditto(-1)
    with pytest.raises(ValueError, match="inner_steps = 0"):
        algorithms.pfedme(inner_steps=0)
    with pytest.raises(ValueError, match="personal_epochs = 0"):
        algorithms.ditto(personal_epochs=0)
    with pytest.raises(ValueError, match="hessian = 'exact'"):
        algorithms.per_fedavg(hessian="exact")
    with pytest.raises(ValueError, match="hessian_step = 0.1 .*hessian_free"):
        algorithms.per_fedavg(hessian_step=0.1)
    with pytest.raises(ValueError, match="cuts each batch into 2 parts, and batch_size is 1"):
        run(algorithms.per_fedavg(), batch_size=1)
