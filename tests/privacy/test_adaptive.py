"""The clip norm follows a quantile of clients' norms, which no client moves by more than a bit."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
import toy
from contracts import harness
from privacy.private import clipped, length, noise_of, pipeline, setting

from fljax import algorithms
from fljax.core.algorithm import Aggregate, blank_job
from fljax.core.transforms import UplinkLink
from fljax.privacy.adaptive import BIT, adaptive_clipping, noise_of_messages

pytestmark = pytest.mark.usefixtures("quick_compilation", "weights_as_written")

MEMBERS = 3.5
COHORTS = [[0, 2, 3], [], [3, 4, 8, 6], [7]]
NUMBERS = {
    "clip_norm": 0.6,
    "noise_multiplier": 0.7,
    "quantile": 0.4,
    "clip_lr": 0.3,
    "bit_noise": 0.8,
}
SHAPES = {"b": (toy.CLASSES,), "w": (toy.FEATURES, toy.CLASSES)}

# In its shape and type like floats, so that sums may be taken of it.
DOUBLED = UplinkLink(
    encode=lambda value, state, job, key: (jax.tree.map(lambda x: x * 2, value), state),
    decode=lambda total, state: jax.tree.map(lambda x: x / 2, total),
    linear=True,
    covers=None,
)


@pytest.mark.parametrize(
    ("behind", "layout"),
    [("nothing", harness.MANY), ("sums", harness.ONE)],
)
def test_rounds_equal_a_loop_over_clients(layout, behind):
    links = (DOUBLED,) if behind == "sums" else ()
    with jax.enable_x64(True):
        run = harness.rounds(
            algorithms.fedavg(0.2, weighting="uniform"), COHORTS, layout,
            pipeline=pipeline(adaptive_clipping(**NUMBERS), MEMBERS, *links, behind=behind),
        )  # fmt: skip
        params, bound = toy.initial_params(), NUMBERS["clip_norm"]
        z, sigma = NUMBERS["noise_multiplier"], NUMBERS["bit_noise"]
        z_delta = (z**-2 - (2 * sigma) ** -2) ** -0.5
        for round, cohort in enumerate(COHORTS):
            for told in run.by_client("privacy/clip_norm", round).values():
                assert told == pytest.approx(bound, rel=1e-6)
            noise, bit_noise = noise_of(round, SHAPES, split=True)
            total = reference.combine(lambda drawn, c=bound: z_delta * c * drawn, noise)
            bits = sigma * bit_noise
            for client in cohort:
                trained, *_ = reference.local_sgd(
                    params, *toy.clients()[client], lr=0.2, batch_size=4, epochs=1
                )
                update = reference.combine(np.subtract, trained, params)
                bits += (length(update) <= bound) - 0.5
                total = reference.combine(np.add, total, *clipped(bound, update))
            params = reference.combine(lambda p, t: p + t / MEMBERS, params, total)
            share = 0.5 + bits / MEMBERS
            bound *= math.exp(-NUMBERS["clip_lr"] * (share - NUMBERS["quantile"]))
        toy.assert_close(run.params, params, 1e-9)
        moved = run.states[-1].pipeline.uplink[0][0]
        assert NUMBERS["clip_norm"] * math.exp(moved) == pytest.approx(bound, rel=1e-9)


@pytest.mark.parametrize("start", [0.1, 1.0, 5.0])
def test_the_clip_norm_lands_at_the_median(start):
    """After 100 rounds of a hundred clients, whose norms are between 0.1 and 10."""
    rounds, cohort = 100, 100
    mechanism = adaptive_clipping(start, 1.0)
    link = mechanism.link(mechanism.hparams, setting(1000, cohort))
    norms = np.exp(np.random.default_rng(0).normal(0, 0.8, (rounds, cohort))).astype(np.float32)
    job = blank_job(jax.random.key(0))._replace(weights={"update": jnp.ones(())})

    @jax.jit
    def run(key, norms):
        def one_round(moved, round):
            def sent_by(norm):
                message = {"update": jnp.array([0.6, -0.8]) * norm}
                return link.encode(message, (), job, None, moved)[0]

            sums = {
                name: Aggregate(values.sum(0), jnp.float32(cohort), jnp.float32(cohort))
                for name, values in jax.vmap(sent_by)(norms[round]).items()
            }
            told, moved = link.release(sums, moved, round, jax.random.fold_in(key, round))
            assert told.keys() == {"update"}
            return moved, start * jnp.exp(moved)

        return jax.lax.scan(one_round, jnp.zeros(()), jnp.arange(rounds))[1]

    last = run(jax.random.key(1), norms)[-10:]
    np.testing.assert_allclose(last, 1.0, atol=0.1)


def test_clients_that_are_not_finite_say_nothing_of_norms():
    mechanism = adaptive_clipping(1.0, 0.0)
    link = mechanism.link(mechanism.hparams, setting(1000, 10))
    job = blank_job(jax.random.key(0))._replace(weights={"update": jnp.ones(())})
    sent = {
        value: link.encode({"update": jnp.array([value])}, (), job, None, jnp.zeros(()))[0]
        for value in (0.5, 2.0, math.nan)
    }
    assert [float(message[BIT]) for message in sent.values()] == [0.5, -0.5, 0]
    assert [float(message["update"][0]) for message in sent.values()] == [0.5, 1, 0]
    again, *_ = link.encode({"update": jnp.array([2.0])}, (), job._replace(occurrence=1), None,
                            jnp.zeros(()))  # fmt: skip
    assert not any(leaf.any() for leaf in again.values())


def test_what_links_behind_make_larger_is_bounded_again():
    mechanism = adaptive_clipping(0.5, 0.0)
    link = mechanism.link(mechanism.hparams, setting(1000, 10, behind="links"))
    moved = jnp.log(2.0)  # to a clip norm of 1
    for bit, expected in ((7.0, 0.5), (-7.0, -0.5), (0.3, 0.3), (math.nan, 0.0)):
        message = {"update": jnp.array([3.0, 4.0]), BIT: jnp.float32(bit)}
        arrives = link.decode(message, moved)
        np.testing.assert_allclose(arrives["update"], [0.6, 0.8], rtol=1e-6)
        assert float(arrives[BIT]) == pytest.approx(expected)


# Andrew et al. 2021, theorem 1; sigma_b is a twentieth of the cohort
@pytest.mark.parametrize(
    ("noise", "members", "expected"),
    [(1.0, 100, 1.005038), (0.6, 20, 0.628971), (2.0, 50, 2.182179), (0.0, 20, 0.0)],
)
def test_the_noise_is_split_between_messages_and_bits(noise, members, expected):
    assert noise_of_messages(noise, members / 20) == pytest.approx(expected, abs=5e-7)
    mechanism = adaptive_clipping(0.5, noise)
    link = mechanism.link(mechanism.hparams, setting(1000, members))
    zeros = {
        "update": Aggregate(jnp.zeros(100_000), jnp.zeros(()), jnp.zeros(())),
        BIT: Aggregate(jnp.zeros(()), jnp.zeros(()), jnp.zeros(())),
    }
    told, _ = link.release(zeros, jnp.zeros(()), 0, jax.random.key(0))
    assert float(told["update"].mean().std()) == pytest.approx(0.5 * expected / members, rel=0.01)


def test_the_guarantee_is_that_of_the_noise_multiplier():
    mechanism = adaptive_clipping(0.1, 1.0, delta=1000**-1.1)
    promised = mechanism.guarantee(mechanism.hparams, setting(1000, 100.0))
    assert promised.clip_norm is None and promised.noise_multiplier == 1.0
    assert promised.epsilon(100)["pld"] == pytest.approx(5.1523, abs=1e-3)


def test_bits_that_cost_all_that_the_noise_allows_are_refused():
    mechanism = adaptive_clipping(0.1, 2.0)
    with pytest.raises(ValueError, match="noise_multiplier = 2 must be below 2 bit_noise = 2.*Rai"):
        mechanism.guarantee(mechanism.hparams, setting(1000, 20.0))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"clip_norm": math.inf}, "clip_norm = inf must be above 0 and finite"),
        ({"quantile": 1.5}, "quantile = 1.5 must be at least 0 and at most 1"),
        ({"clip_lr": -1}, "clip_lr = -1.0 must be at least 0"),
        ({"bit_noise": 0}, "bit_noise = 0.0 must be above 0"),
    ],
)
def test_numbers_out_of_range_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        adaptive_clipping(**given)
