"""Messages of single attackers: flipped, random, scaled or idle updates; honest ones stay."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
from contracts import harness
from robustness import by_hand

from fljax import algorithms
from fljax.core.algorithm import blank_job
from fljax.core.canaries import direction, is_included
from fljax.core.transforms import Pipeline, PipelineSpec
from fljax.robustness.attackers import by_client
from fljax.robustness.attacks.alone import noise, scaling, sign_flip
from fljax.robustness.attacks.canary import canary
from fljax.robustness.attacks.free_rider import free_rider

KEY = jax.random.key(3)
UPDATE = {
    "w": np.random.default_rng(0).standard_normal((50, 40)),
    "b": np.float32([1.5, -0.0, np.inf]),
}
ATTACKS = {
    "sign_flip": (sign_flip, {"scale": 2.0}),
    "noise": (noise, {"std": 3.0}),
    "scaling": (scaling, {"factor": 10.0}),
    "free_rider": (free_rider, {"std": 3.0, "decay": 0.5}),
    "canary": (canary, {"norm": 3.0, "seed": 7, "chance": 1.0}),
}


def sent(attack, hostile=True, round=0, key=KEY, told=()):
    """Returns what a client sends of the update."""
    job = blank_job(KEY)._replace(attacker=jnp.bool_(hostile), round=jnp.int32(round))
    (link,) = attack.uplink
    payload, state = link.encode(jax.tree.map(jnp.asarray, UPDATE), (), job, key, *told)
    assert state == () and link.covers == "update"
    return link.decode(payload, ())


@pytest.mark.parametrize("name", ATTACKS)
def test_honest_clients_send_what_they_have_and_traced_numbers_are_pythons(name):
    make, numbers = ATTACKS[name]
    honest = sent(make(**numbers), hostile=False)
    for leaf, own in zip(jax.tree.leaves(honest), jax.tree.leaves(UPDATE), strict=True):
        assert leaf.dtype == own.dtype and leaf.tobytes() == own.tobytes()
    traced = jax.jit(lambda given: sent(make(**given), round=4))(numbers)
    plain = sent(make(**numbers), round=4)
    near = 1e-6 if name == "canary" else 1e-12  # directions are drawn in 32 bits
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=near), traced, plain)
    assert [leaf.dtype for leaf in jax.tree.leaves(plain)] == [np.float32, np.float64]


def test_flipped_and_scaled():
    np.testing.assert_array_equal(sent(sign_flip())["w"], -UPDATE["w"])
    np.testing.assert_array_equal(sent(sign_flip(2.0))["b"], -2 * UPDATE["b"])
    np.testing.assert_array_equal(sent(scaling(-2.5))["w"], -2.5 * UPDATE["w"])


def test_noise_has_its_spread_and_its_key():
    plain, again = sent(noise(3.0)), sent(noise(3.0))
    jax.tree.map(np.testing.assert_array_equal, plain, again)
    drawn = np.asarray(plain["w"])
    # 2,000 draws: five standard errors
    np.testing.assert_allclose(drawn.mean(), 0, atol=5 * 3 / 2000**0.5)
    np.testing.assert_allclose(drawn.std(), 3, rtol=5 / 4000**0.5)
    assert (drawn != sent(noise(3.0), key=jax.random.key(4))["w"]).all()
    added = sent(noise(3.0, added=True))
    np.testing.assert_allclose(added["w"], UPDATE["w"] + drawn, rtol=1e-12)
    np.testing.assert_array_equal(sent(noise(0.0))["w"], 0 * UPDATE["w"])
    assert (np.ravel(plain["w"])[:3] != plain["b"]).all()


def test_free_riders_send_nothing_noise_that_decays_or_the_last_aggregate():
    np.testing.assert_array_equal(sent(free_rider(), round=3)["w"], 0 * UPDATE["w"])
    first, later = (sent(free_rider(std=2.0, decay=0.5), round=round)["w"] for round in (0, 8))
    np.testing.assert_allclose(first, 2 / 3 * np.asarray(sent(noise(3.0))["w"]), rtol=1e-12)
    np.testing.assert_allclose(later, first / 3, rtol=1e-12)
    stays = sent(free_rider(std=2.0, decay=0.0), round=8)["w"]
    np.testing.assert_allclose(stays, first, rtol=1e-12)
    last = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 7, leaf.dtype), UPDATE)
    np.testing.assert_array_equal(sent(free_rider("last"), told=(last,))["w"], last["w"])
    noisy = sent(free_rider("last", std=2.0), told=(last,))["w"]
    np.testing.assert_allclose(noisy, 7 + np.asarray(first), rtol=1e-12)


def test_canaries_send_their_directions_in_all_rounds_or_nothing():
    expected = direction(7, 0, UPDATE)  # of client 0, who sends
    for round in (0, 5):
        found = sent(canary(3.0, seed=7), round=round)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, 3 * np.asarray(b), rtol=1e-6),
            found,
            expected,
        )
    left_out = next(seed for seed in range(9) if not is_included(seed, 0, 0.5))
    np.testing.assert_array_equal(sent(canary(3.0, left_out, chance=0.5))["w"], 0 * UPDATE["w"])
    assert np.linalg.norm(sent(canary(3.0, left_out))["w"]) > 2.9


FLIPS, RIDES = (0, 6), (3, 7)


def loop(rows, clients, weights, last):
    """Returns the weighted mean with sign flippers and free riders in it, twice."""
    rows = rows.copy()
    rows[np.isin(clients, FLIPS)] *= -0.5
    rows[np.isin(clients, RIDES)] = last
    return (np.average(rows, axis=0, weights=weights),) * 2


@pytest.mark.parametrize("layout", harness.LAYOUTS)
def test_rounds_with_flippers_and_free_riders(layout):
    cohorts = [[0, 1, 2, 3, 8, 5], [7, 3, 6, 0], [5, 3, 8]]
    params, last = by_hand.rounds(loop, np.zeros(by_hand.NUM_PARAMS), cohorts)

    def only(attack, clients):
        """Returns the attack's link for some of the attackers."""
        (link,) = attack.uplink

        def encode(update, state, job, key, *told):
            mine = job.attacker & jnp.isin(job.client, jnp.array(clients))
            return link.encode(update, state, job._replace(attacker=mine), key, *told)

        return link._replace(encode=encode)

    def build(hparams):
        return Pipeline(
            uplink=(
                only(sign_flip(hparams["scale"]), FLIPS),
                only(free_rider("last"), RIDES),
            ),
            attackers=by_client(FLIPS + RIDES),
        )

    spec = PipelineSpec(build, {"scale": 0.5})
    run = harness.rounds(algorithms.fedavg(0.2), cohorts, layout, pipeline=spec)
    toy.assert_close(run.params, params, 1e-9)
    kept = jax.tree.map(lambda leaf: leaf[0], run.states[-1].pipeline.uplink[1])
    np.testing.assert_allclose(by_hand.flat(kept), last, rtol=1e-9, atol=1e-12)
    assert run.total("robustness/attackers", 0) == 2


@pytest.mark.parametrize(
    ("make", "arguments", "text"),
    [
        (sign_flip, {"scale": -1.0}, "scale = -1.0 must be at least 0"),
        (noise, {"std": -1.0}, "std = -1.0 must be at least 0"),
        (noise, {"std": 1.0, "added": "yes"}, "added = 'yes'"),
        (free_rider, {"sends": "all"}, "sends = 'all' is not one of 'nothing', 'last'"),
        (free_rider, {"std": -1.0}, "std = -1.0 must be at least 0"),
        (free_rider, {"decay": "fast"}, "decay = 'fast'"),
        (canary, {"norm": 0.0}, "norm = 0.0 must be above 0"),
        (canary, {"norm": 1.0, "seed": 0.5}, "seed = 0.5 .* must be a whole number"),
        (canary, {"norm": 1.0, "chance": 0.0}, "chance = 0.0 must be above 0 and at most 1"),
    ],
)
def test_wrong_arguments_are_refused(make, arguments, text):
    with pytest.raises(ValueError, match=text):
        make(**arguments)
