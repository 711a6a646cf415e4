"""Canaries are found where they were sent, and tell how much noise there is."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

import fljax
from fljax import algorithms
from fljax.audits.bounds.canaries import (
    audit_canaries,
    cosines,
    epsilon_of_cosines,
    included,
)
from fljax.core.canaries import direction, is_included
from fljax.privacy import accounting, gaussian

pytestmark = pytest.mark.usefixtures("quick_compilation", "weights_as_written")

SHAPES = {"w": jax.ShapeDtypeStruct((30, 40), jnp.float32), "b": jnp.zeros((7,))}
DIRECTION = jax.jit(lambda seed, canary: direction(seed, canary, SHAPES))


def flat(tree):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)]).astype(np.float64)


def test_directions_have_norm_1_and_are_almost_orthogonal():
    found = np.stack([flat(DIRECTION(seed, n)) for seed in (0, 1) for n in range(20)])
    products = found @ found.T
    np.testing.assert_allclose(np.diagonal(products), 1, rtol=1e-6)
    others = products[~np.eye(40, dtype=bool)]
    # 780 products of N(0, 1 / d): five standard errors of their spread
    assert np.abs(others).max() < 5 * 1207**-0.5
    np.testing.assert_allclose(others.std(), 1207**-0.5, rtol=5 / (2 * 780) ** 0.5)
    np.testing.assert_allclose((found**2).mean(1), 1 / 1207, rtol=1e-6)


def test_directions_are_the_same_in_programs_and_other_types():
    traced = DIRECTION(jnp.float32(5), jnp.int32(9))
    plain = direction(5, 9, {"w": jnp.zeros((30, 40), jnp.float16), "b": jnp.zeros(7)})
    assert plain["w"].dtype == jnp.float16
    np.testing.assert_allclose(plain["w"], traced["w"], rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(plain["b"], traced["b"], rtol=1e-5)


def test_coins_are_fair_and_their_own():
    coins = included(3, range(4000), 0.5)
    assert abs(coins.mean() - 0.5) < 5 * 0.5 / 4000**0.5
    assert abs((coins == included(4, range(4000), 0.5)).mean() - 0.5) < 5 * 0.5 / 4000**0.5
    assert included(3, range(4000), 1.0).all()
    assert not (included(3, range(4000), 0.3) & ~coins).any()
    assert bool(is_included(jnp.float32(3), jnp.int32(7), jnp.float32(0.5))) == coins[7]


def test_cosines_are_those_of_a_loop_and_of_no_change_zero():
    random = np.random.default_rng(0)
    changes = {
        "w": random.standard_normal((3, 30, 40)).astype(np.float32),
        "b": random.standard_normal((3, 7)).astype(np.float32),
    }
    changes = jax.tree.map(
        lambda leaf: leaf * np.float32([1, 0, 50])[:, *(None,) * (leaf.ndim - 1)], changes
    )
    canaries = [4, 0, 1_000_000, *range(10, 30)]
    found = cosines(changes, 2, canaries)
    rows = np.concatenate([changes["b"], changes["w"].reshape(3, -1)], axis=1).astype(np.float64)
    for place, canary in enumerate(canaries):
        own = flat(DIRECTION(2, canary))
        for look in (0, 2):
            expected = rows[look] @ own / np.linalg.norm(rows[look])
            np.testing.assert_allclose(found[look, place], expected, atol=1e-6)
    assert found.shape == (3, 23) and found.dtype == np.float64 and (found[1] == 0).all()


def test_cosines_of_what_nobody_sent_are_normal():
    random = np.random.default_rng(1)
    change = {"w": random.standard_normal((1, 30, 40)), "b": random.standard_normal((1, 7))}
    (found,) = cosines(change, 0, range(3000)) * 1207**0.5
    assert abs(found.mean()) < 5 / 3000**0.5
    assert abs(found.std() - 1) < 5 / 6000**0.5
    assert abs((found**4).mean() - 3) < 5 * (96 / 3000) ** 0.5


@functools.partial(jax.jit, static_argnums=(1, 2))
def sum_of(seed, canaries, size):
    like = jax.ShapeDtypeStruct((size,), jnp.float32)
    directions = jax.vmap(lambda canary: direction(seed, canary, {"w": like})["w"])
    return directions(jnp.arange(canaries)).sum(0)


def noisy_sum(noise, seed, sent=60, size=5000):
    """Returns cosines with a noisy sum: of canaries that were sent, and of others."""
    draws = noise * np.random.default_rng(seed).standard_normal(size)
    total = np.asarray(sum_of(seed, sent, size), np.float64) + draws
    found = cosines({"w": total[None]}, seed, range(sent + 200))[0]
    return found[:sent], found[sent:]


def test_the_noise_of_a_sum_is_estimated_within_its_spread():
    """The estimate of k canaries has a spread, which 6 seeds show; it is centred on the truth."""
    truth = accounting.epsilon_of_gaussian(1.0, 1e-3)
    estimates = []
    for seed in range(6):
        sent, unsent = noisy_sum(1.0, seed)
        bound = audit_canaries(sent, unsent, delta=1e-3, dimensions=5000)
        assert bound.epsilon < truth < 2 * bound.estimate
        assert bound.estimate == epsilon_of_cosines(sent, 1e-3, dimensions=5000)
        estimates.append(bound.estimate)
    spread = np.std(estimates, ddof=1)
    assert spread < 0.35 * truth
    assert abs(np.mean(estimates) - truth) < 4 * spread / 6**0.5 + 0.02 * truth


def test_a_quarter_of_the_noise_is_caught():
    claimed = accounting.epsilon_of_gaussian(1.0, 1e-3)
    quarter, whole = noisy_sum(0.25, 9), noisy_sum(1.0, 9)
    assert audit_canaries(*quarter, delta=1e-3, gaussian=True).exceeds(claimed)
    assert not audit_canaries(*whole, delta=1e-3, gaussian=True).exceeds(claimed)
    plain = audit_canaries(*quarter, delta=1e-3).epsilon
    assert 0 < plain < audit_canaries(*quarter, delta=1e-3, gaussian=True).epsilon


def test_both_fits_agree_where_the_null_is_known():
    sent, unsent = noisy_sum(1.0, 3)
    known = epsilon_of_cosines(sent, 1e-3, dimensions=5000)
    fitted = epsilon_of_cosines(sent, 1e-3, unsent=unsent)
    assert fitted == pytest.approx(known, rel=0.15) and fitted != known
    assert audit_canaries(sent, unsent, delta=1e-3).estimate == fitted


def test_few_canaries_give_no_estimate():
    assert epsilon_of_cosines([0.1], 1e-3, dimensions=100) is None
    assert epsilon_of_cosines([0.1, 0.2], 1e-3, unsent=[0.0]) is None
    bound = audit_canaries([], [], delta=1e-3)
    assert bound.epsilon == 0 and bound.estimate is None
    assert bound.plain()["numbers"]["mean_sent"] is None
    assert audit_canaries([0.5, 0.5], [0.1, 0.2], delta=1e-3).estimate == math.inf


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: cosines({"w": jnp.zeros((1, 2))}, -1, [0]), "seed = -1 must be at least 0"),
        (lambda: cosines({"w": jnp.zeros((1, 2))}, 2**24, [0]), "seed = 16777216 must be"),
        (lambda: included(0, [1], 1.5), "chance = 1.5 must be above 0 and at most 1"),
        (lambda: epsilon_of_cosines([1.0], 1e-3), "Give either dimensions or the cosines"),
        (
            lambda: epsilon_of_cosines([1.0], 1e-3, dimensions=3, unsent=[1.0]),
            "Give either dimensions or the cosines",
        ),
        (lambda: audit_canaries([0.1], [0.2], delta=1.0, dimensions=9), "delta = 1.0 must be"),
    ],
)
def test_wrong_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_canaries_of_a_private_run_are_clipped_and_are_those_that_are_looked_for():
    """All clients are canaries of a length that only clipping bounds, in rounds of everybody."""
    parts = toy.clients(sizes=[4 + n % 3 for n in range(24)], dtype=np.float32)
    models = []

    def keep(federation, record):
        models.append(jax.device_get(toy.params_of(federation)))

    fljax.simulate(
        toy.dataset(parts), toy.softmax_task(np.float32), algorithms.fedavg(weighting="uniform"),
        num_rounds=2, clients_per_round=24, sampler="poisson", batch_size=4, eval_every=0,
        privacy=gaussian(0.5, noise_multiplier=0.0, delta=1e-3), attackers=1.0,
        attack="canary(1e30, seed=11, chance=0.5)", hooks=(keep,),
        devices=1, lanes=2, progress=False,
    )  # fmt: skip
    change = jax.tree.map(np.subtract, models[1], models[0])
    sent = included(11, range(24), 0.5)
    assert 0 < sent.sum() < 24
    directions = jax.vmap(lambda client: direction(11, client, change))(np.flatnonzero(sent))
    expected = flat(jax.tree.map(lambda leaf: leaf.sum(0), directions))
    np.testing.assert_allclose(flat(change), 0.5 / 24 * expected, rtol=1e-4, atol=1e-6)
    looks = jax.tree.map(lambda leaf: np.stack([leaf, -leaf]), change)
    found = cosines(looks, 11, range(24))
    assert found[0, sent].mean() > 0.15 + found[0, ~sent].mean()
    np.testing.assert_allclose(found[1], -found[0], atol=1e-6)
