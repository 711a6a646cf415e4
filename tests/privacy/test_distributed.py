"""Distributed noise: its numbers, the integers that it is added to, and the sums that are seen."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
import toy
from contracts import harness
from privacy.private import clipped, pipeline, setting
from scipy import special, stats

from fljax import algorithms
from fljax.core.algorithm import Aggregate, blank_job
from fljax.core.transforms import Participants
from fljax.privacy import accounting, discrete_gaussian, skellam
from fljax.privacy.distributed import sum_bound
from fljax.privacy.integer_messages import integers, norm_before, rotated, rotated_back
from fljax.privacy.integer_noise import discrete_gaussian_table, draw, skellam_table

pytestmark = pytest.mark.usefixtures("quick_compilation", "weights_as_written")

TABLES = {
    "discrete_gaussian": discrete_gaussian_table,
    "skellam": lambda std: skellam_table(std**2),
}
BOTH = {"discrete_gaussian": discrete_gaussian, "skellam": skellam}


def chances(name, std, largest):
    """Returns float64 probabilities of -largest ... largest."""
    numbers = np.arange(-largest, largest + 1)
    if name == "skellam":
        return special.ive(np.abs(numbers), std**2)
    weights = np.exp(-(numbers**2) / (2 * std**2))
    return weights / weights.sum()


@pytest.mark.parametrize("std", [1, 8, 71])
@pytest.mark.parametrize("name", TABLES)
def test_tables_hold_the_probabilities_to_their_last_digits(name, std):
    table = TABLES[name](std)
    largest = table.largest
    exact = chances(name, std, largest)[largest:]
    exact[1:] *= 2
    words = [(int(h) << 31) + int(low) for h, low in zip(table.high, table.low, strict=True)]
    found = np.diff([0, *words]) / 2.0**63
    np.testing.assert_allclose(found, exact[:-1], rtol=1e-9, atol=2.0**-62)
    beyond = [2**63 - word for word in words]
    assert 1 < beyond[-1] <= beyond[-2] and beyond[-1] < 2**12
    assert table.distance < 1e-16


@pytest.mark.parametrize("name", TABLES)
def test_numbers_are_drawn_with_these_probabilities(name):
    std, number = 6, 200_000
    drawn = np.asarray(draw(TABLES[name](std), jax.random.key(3), number))
    edges = 3 * std
    expected = chances(name, std, 60)
    cells = np.clip(np.arange(-60, 61), -edges, edges) + edges
    expected = np.bincount(cells, expected)
    counts = np.bincount(np.clip(drawn, -edges, edges) + edges, minlength=2 * edges + 1)
    assert stats.chisquare(counts, expected / expected.sum() * number).pvalue > 1e-3
    assert abs(drawn.mean()) < 5 * std / math.sqrt(number)
    assert drawn.std() == pytest.approx(std, rel=0.01)


@pytest.mark.parametrize("clients", [1, 2, 5])
@pytest.mark.parametrize("name", BOTH)
def test_sums_of_shares_diverge_no_more_than_the_accountant_says(name, clients):
    """Enumerated: convolved shares, moved by all that one client may add in one dimension."""
    std, moved = 4, 3
    share = chances(name, std, 60)
    total = share
    for _ in range(clients - 1):
        total = np.convolve(total, share)
    own, other = total[moved:], total[:-moved]
    kept = (own > 1e-250) & (other > 1e-250)
    orders = np.array([2.0, 4.0, 8.0])
    exact = [
        special.logsumexp(a * np.log(own[kept]) + (1 - a) * np.log(other[kept])) / (a - 1)
        for a in orders
    ]
    event = (
        accounting.skellam(clients * std**2, moved, moved)
        if name == "skellam"
        else accounting.discrete_gaussian(std, moved, moved, 1, clients)
    )
    assert (exact <= event.rdp(orders) + 1e-12).all()
    assert (event.rdp(orders) < 1.6 * np.array(exact)).all()


@pytest.mark.parametrize("size", [1, 2, 3, 28, 64, 1000])
def test_rotations_of_any_size_keep_norms_and_spread_vectors(size):
    key = jax.random.key(size)
    turned = np.asarray(jax.jit(jax.vmap(rotated, (0, None)))(jnp.eye(size), key))
    np.testing.assert_allclose(turned @ turned.T, np.eye(size), atol=1e-5)
    back = jax.jit(rotated_back)(jnp.asarray(turned[0]), key)
    np.testing.assert_allclose(back, np.eye(size)[0], atol=1e-5)
    if size == 1000:
        assert abs(turned).max() <= 6 / math.sqrt(512)


convert = jax.jit(jax.vmap(integers, (None, None, None, None, 0)))


@pytest.mark.parametrize("norm", [40.0, 200.0, 5000.0])
def test_integers_keep_to_their_norm_whatever_the_message(norm):
    """They are right on average; a norm that leaves no room for rounding makes zeros."""
    size, clip = 1000, 0.7
    shared = jax.random.key(0)
    draws = jax.random.split(jax.random.key(1), 200)
    even, single = np.full(size, clip / math.sqrt(size)), np.eye(size)[3] * clip
    for vector in (even, single, np.zeros(size)):
        vector = jnp.asarray(vector, jnp.float32)
        found = np.asarray(convert(vector, clip, norm, shared, draws), np.float64)
        assert (np.linalg.norm(found, axis=1) <= norm).all()
        exact = np.asarray(jax.jit(rotated)(vector, shared), np.float64)
        exact *= float(norm_before(norm, size)) / clip
        assert abs((found.mean(axis=0) - exact) * math.sqrt(200)).max() < 5 * 0.5 + 1e-2 * norm
    assert norm_before(14.0, size) == 0
    nothing = convert(jnp.asarray(single, jnp.float32), clip, 14.0, shared, draws)
    assert not np.asarray(nothing).any()


def server(mechanism, places, size, **facts):
    """Returns what makes one message of clients' messages: (key, messages[P, d], present, arrived)
    -> (float[d], how many arrived in a sum that is not refused)."""
    facts = {"message_size": size, "clients_per_round": places, "sampler": "uniform"} | facts
    link = mechanism.link(mechanism.hparams, setting(**facts))

    @jax.jit
    def run(key, messages, present, arrived):
        agreed = link.agree(Participants(present, jnp.int32(0), key))

        def encode(position, message):
            job = blank_job(key)._replace(position=position)
            own = jax.random.fold_in(key, position)
            return link.encode({"update": {"w": message}}, (), job, own, agreed)[0]["update"]["w"]

        words = jax.vmap(encode)(jnp.arange(places), messages)
        total = jnp.where(arrived[:, None], words, 0).sum(axis=0, dtype=jnp.uint32)
        count = arrived.sum(dtype=jnp.float32)
        total = {"update": Aggregate({"w": total}, count, count)}
        told = link.decode_sum(total, (), agreed, arrived)["update"]
        return told.sum["w"], told.count

    def call(messages, key=0, present=None, lost=()):
        present = np.ones(places, bool) if present is None else present
        arrived = present & ~np.isin(np.arange(places), lost)
        return jax.device_get(
            run(jax.random.key(key), jnp.asarray(messages, jnp.float32), present, arrived)
        )

    return call


@pytest.mark.parametrize("make", BOTH.values())
def test_a_sum_has_noise_of_z_times_the_clip_norm_whoever_takes_part(make):
    clip, noise, places, size, rounds = 0.3, 1.5, 6, 1024, 8
    run = server(make(clip, noise, share_std=60, lost=0.3), places, size)
    zeros = np.zeros((places, size))
    few = np.arange(places) < 4
    for case in ({"lost": (0,)}, {"present": few, "lost": (2,)}):
        drawn = np.concatenate([run(zeros, key, **case)[0] for key in range(rounds)])
        assert drawn.std() == pytest.approx(noise * clip, rel=0.04)
    # those who are not lost bring noise as well, and too few of them are refused
    drawn = np.concatenate([run(zeros, key)[0] for key in range(rounds)])
    assert drawn.std() == pytest.approx(noise * clip * math.sqrt(6 / 5), rel=0.04)
    value, count = run(zeros, lost=(1, 2))
    assert count == 0 and not value.any()
    messages = np.random.default_rng(0).normal(size=(places, size)) * 0.004
    messages[0] *= 500
    lengths = np.linalg.norm(messages, axis=1, keepdims=True)
    expected = (messages * np.minimum(1, clip / lengths)).sum(axis=0)
    means = np.mean([run(messages, key)[0] for key in range(rounds)], axis=0)
    gap = (means - expected).std()
    assert gap == pytest.approx(noise * clip * math.sqrt(6 / 5 / rounds), rel=0.1)


def test_a_small_ring_loses_nothing_of_a_sum():
    """Of equal messages, the largest sum there is, in the smallest ring that is not refused."""
    places, size = 20, 500
    messages = np.tile(np.eye(size)[7], (places, 1))
    run = setting(message_size=size, clients_per_round=places, sampler="uniform", num_rounds=1)
    sums = []
    for ring_bits in (32, 13):
        mechanism = skellam(1.0, 0.8, ring_bits=ring_bits, share_std=30)
        mechanism.guarantee(mechanism.hparams, run)
        sums.append(server(mechanism, places, size)(messages)[0])
    np.testing.assert_array_equal(*sums)
    tight = skellam(1.0, 0.8, ring_bits=12, share_std=30)
    with pytest.raises(ValueError, match=r"ring_bits = 12: .* may reach .*ring_bits = 13"):
        tight.guarantee(tight.hparams, run)
    bound = sum_bound(0.8, 30, size, places, skellam_table(900).largest)
    turned = rotated(jnp.asarray(messages.sum(0), jnp.float32), jax.random.key(1))
    assert abs(turned).max() * math.sqrt(places) * 30 / 0.8 < bound < 2**12


COHORTS = [[0, 2, 3], [3, 4, 8, 6], [7, 5]]


def test_rounds_equal_a_loop_over_clients_but_for_the_noise_and_layouts_change_nothing():
    """A client whose data are not finite sends noise; so little of it that sums can be compared."""
    clip, lr = 0.4, 0.2
    chain = pipeline(skellam(clip, 1e-5, share_std=8), 3)
    parts = toy.clients()
    parts[6] = (np.full_like(parts[6][0], np.nan), parts[6][1])
    spec = algorithms.fedavg(lr, weighting="uniform")
    with jax.enable_x64(True):
        one, many = (
            harness.rounds(spec, COHORTS, layout, parts=parts, pipeline=chain)
            for layout in harness.LAYOUTS
        )
    toy.assert_close(many.params, one.params, 1e-7)
    params = toy.initial_params()
    for cohort in COHORTS:
        total = reference.zeros(params)
        for client in cohort:
            if client == 6:
                continue
            x, y = parts[client]
            trained, *_ = reference.local_sgd(params, x, y, lr=lr, batch_size=4, epochs=1)
            (sent,) = clipped(clip, reference.combine(np.subtract, trained, params))
            total = reference.combine(np.add, total, sent)
        params = reference.combine(lambda p, t: p + t / 3, params, total)
    for name, leaf in params.items():
        np.testing.assert_allclose(one.params[name], leaf, rtol=0, atol=2e-5)
    assert one.total("uplink_bits", 0) == 3 * 28 * 32
    assert [one.total("refused", round) for round in range(3)] == [0, 0, 0]


@pytest.mark.parametrize("make", BOTH.values())
def test_epsilon_is_hardly_more_than_that_of_gaussian_noise(make):
    """Of as many releases as a client has turns, none of which chance makes less likely."""
    run = setting(message_size=7850, sampler="poisson", participations=lambda rounds: rounds // 2)
    mechanism = make(0.3, 2.0, delta=1e-5)
    guarantee = mechanism.guarantee(mechanism.hparams, run)
    gaussian = accounting.epsilon([(accounting.gaussian(2.0), 4)], 1e-5, "rdp")
    assert gaussian <= guarantee.epsilon(8)["rdp"] < 1.02 * gaussian
    assert (guarantee.unit, guarantee.relation) == ("user", "replace_special")


@pytest.mark.parametrize(
    ("options", "facts", "message"),
    [
        ({}, {"weighting": "examples"}, "Use weighting='uniform'"),
        ({}, {"behind": "links"}, "sends integers behind masks of its own"),
        ({}, {"behind": "sums"}, "sends integers behind masks of its own"),
        ({"delta": 1e-3}, {}, "delta = 0.001 must be below 1/N"),
        ({"ring_bits": 8}, {}, "ring_bits = 8: the sum of 210 clients"),
    ],
)
def test_runs_without_a_promise_are_refused(options, facts, message):
    mechanism = skellam(0.3, 1.0, **options)
    with pytest.raises(ValueError, match=message):
        mechanism.guarantee(mechanism.hparams, setting(message_size=100, **facts))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"clip_norm": math.inf}, "clip_norm = inf"),
        ({"noise_multiplier": 0}, "noise_multiplier = 0.0 must be above 0"),
        ({"ring_bits": 33}, "ring_bits = 33"),
        ({"share_std": 0}, "share_std = 0 must be at least 1"),
        ({"lost": 1.0}, "lost = 1.0"),
        ({"graph": 3}, "graph = 3"),
    ],
)
def test_numbers_out_of_range_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        discrete_gaussian(**given)
