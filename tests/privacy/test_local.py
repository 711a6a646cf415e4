"""Messages that clients randomize: their means, variances, likelihoods, and what they add up to."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
import toy
from contracts import harness
from privacy.private import clipped, length, pipeline, setting
from scipy import optimize, special, stats

import fljax
from fljax import algorithms, compression
from fljax.core.algorithm import blank_job
from fljax.core.sampler import Sampler, poisson, separated, uniform
from fljax.core.transforms import Pipeline
from fljax.engine.program import keys
from fljax.privacy import local_gaussian, privunit, randomized_sign
from fljax.privacy.privunit import best_cap, randomized_direction
from fljax.training.participations import participations_of

pytestmark = pytest.mark.usefixtures("quick_compilation", "weights_as_written")

FEDAVG = algorithms.fedavg(0.2, weighting="uniform")
MESSAGE = {"update": {"w": jnp.array([[0.3, -0.1], [0.0, 0.25]]), "b": jnp.array([-0.05])}}
SIZE = 5
# {name: (mechanism, the noise that its formula says of a coordinate, from dimension and value)}
MECHANISMS = {
    "gaussian": local_gaussian(0.6, 1.5),
    "gaussian, clipped": local_gaussian(0.2, 1.5),
    "privunit": privunit(0.6, 2.0),
    "privunit, large epsilon": privunit(0.6, 12.0),
    "signs": randomized_sign(0.3, 1.5),
    "signs of blocks": randomized_sign(0.3, 1.5, coordinates=2),
    "votes": randomized_sign(0.3, 1.5, rounding="sign"),
}


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


def job_of(**facts):
    job = blank_job(jax.random.key(0))
    return job._replace(**{"weights": {"update": jnp.ones(())}, **facts})


def link_of(mechanism, **facts):
    return mechanism.link(mechanism.hparams, setting(message_size=SIZE, **facts))


def vector(tree):
    return np.concatenate([np.asarray(leaf).reshape(-1) for leaf in jax.tree.leaves(tree)])


def drawn(mechanism, message, number=40_000):
    """Returns float64[number, d] of what a client sends, time after time."""
    sent = sender(mechanism)(message, jax.random.split(jax.random.key(1), number))
    leaves = [np.asarray(leaf, np.float64).reshape(number, -1) for leaf in jax.tree.leaves(sent)]
    return np.concatenate(leaves, axis=1)


def sender(mechanism):
    link = link_of(mechanism)
    send = lambda message, key: link.encode(message, (), job_of(), key)[0]  # noqa: E731
    return jax.jit(jax.vmap(send, (None, 0)))


def expected(name, x):
    """Returns (mean of what is sent, sum of its variances) by the formulas."""
    hp = MECHANISMS[name].hparams
    if "gaussian" in name:
        bound = hp["clip_norm"]
        return x * min(1, bound / np.linalg.norm(x)), x.size * (1.5 * bound) ** 2
    if "privunit" in name:
        _, _, gamma, s = map(float, best_cap(hp["message_epsilon"], x.size))
        second = hp["clip_norm"] ** 2 * (x.size + gamma * s) / s**2
        return x, second - x @ x
    bound, t = hp["value_bound"], math.tanh(hp["coordinate_epsilon"] / 2)
    mean = np.sign(x) * bound if name == "votes" else x
    blocks = np.array([2, 2, 3, 3, 3]) if name == "signs of blocks" else np.ones(x.size)
    return mean, (blocks * (bound / t) ** 2 - mean**2).sum()


@pytest.mark.parametrize("name", MECHANISMS)
def test_means_and_variances_are_those_of_the_formulas(name):
    sent = drawn(MECHANISMS[name], MESSAGE)
    mean, variance = expected(name, vector(MESSAGE))
    deviations = sent.std(axis=0) / math.sqrt(len(sent))
    assert (abs(sent.mean(axis=0) - mean) < 5 * deviations + 1e-9).all()
    assert sent.var(axis=0).sum() == pytest.approx(variance, rel=0.02)


@pytest.mark.parametrize("name", MECHANISMS)
def test_what_counts_no_more_is_sent_like_a_zero_bit_for_bit(name):
    """A second job, what is not finite, and a client's data beyond the bound that it counts."""
    zero = jax.tree.map(jnp.zeros_like, MESSAGE)
    broken = jax.tree.map(lambda leaf: leaf.at[0].set(jnp.nan), MESSAGE)
    key = jax.random.key(5)
    mechanism = MECHANISMS[name]
    make = {"gaussian": local_gaussian, "privunit": privunit}.get(
        mechanism.name.removeprefix("local_"), randomized_sign
    )
    bounded = link_of(make(*mechanism.hparams.values(), max_participations=2))

    def sender_of(link):
        @jax.jit
        def send(message, count=(), occurrence=0):
            return link.encode(message, count, job_of(occurrence=jnp.int32(occurrence)), key)

        return send

    send = sender_of(link_of(mechanism))
    zeros = vector(send(zero)[0])
    for sent, _ in (send(MESSAGE, occurrence=1), send(broken)):
        np.testing.assert_array_equal(vector(sent), zeros)
    assert (vector(send(MESSAGE)[0]) != zeros).any()
    send, count = sender_of(bounded), bounded.init_client(None)
    zeros = vector(send(zero, count)[0])
    counts, counted = [], []
    for occurrence in (0, 1, 0, 0):
        sent, count = send(MESSAGE, count, occurrence)
        counted.append(bool((vector(sent) != zeros).any()))
        counts.append(int(count))
    assert counts == [1, 1, 2, 2] and counted == [True, False, True, False]


@pytest.mark.parametrize("epsilon", [0.05, 1.0, 4.0, 8.0, 16.0])
def test_privunit_divides_its_epsilon_almost_as_well_as_can_be(epsilon, x64):
    """And all of it: the density at the far side of the threshold is e^epsilon times smaller."""
    dimension = 1000

    def error(share):
        outside, tail = special.expit(-share * epsilon), special.expit(-(1 - share) * epsilon)
        gamma = -special.ndtri(tail)
        s = stats.norm.pdf(gamma) * ((1 - outside) / tail - outside / (1 - tail))
        return (dimension + gamma * s) / s**2

    outside, tail, gamma, s = map(float, best_cap(epsilon, dimension))
    ratio = (1 - outside) / tail / (outside / (1 - tail))
    assert math.log(ratio) == pytest.approx(epsilon, rel=1e-9)
    found = optimize.minimize_scalar(error, bounds=(0, 1), method="bounded").fun
    assert found <= (dimension + gamma * s) / s**2 * (1 + 1e-9) < 1.001 * found


@pytest.mark.parametrize("epsilon", [2.0, 8.0])
def test_privunit_errs_as_little_as_on_the_sphere(epsilon, x64):
    """Bhowmick et al.: a point of the sphere, uniform in a cap with probability p, and outside."""
    dimension = 2000
    a = (dimension - 1) / 2

    def error(share):
        inside, body = special.expit(share * epsilon), special.expit((1 - share) * epsilon)
        gamma = 2 * special.betaincinv(a, a, body) - 1
        height = math.exp(
            a * math.log1p(-(gamma**2))
            - math.log(2 * a)
            - (2 * a - 1) * math.log(2)
            - special.betaln(a, a)
        )
        mean = height * (inside / (1 - body) - (1 - inside) / body)
        return 1 / mean**2

    _, _, gamma, s = map(float, best_cap(epsilon, dimension))
    best = optimize.minimize_scalar(error, bounds=(0.01, 0.99), method="bounded").fun
    assert (dimension + gamma * s) / s**2 == pytest.approx(best, rel=0.01)


def test_privunit_draws_from_its_density():
    """Along the direction: cells of a mixture of normal numbers on both sides of the threshold."""
    epsilon, unit = 3.0, jnp.array([0.6, 0.0, 0.8])
    cap = best_cap(epsilon, 3)
    draw = lambda key: randomized_direction(unit, epsilon, key) @ unit * cap.scale  # noqa: E731
    sent = np.asarray(jax.jit(jax.vmap(draw))(jax.random.split(jax.random.key(2), 50_000)))
    outside, tail, gamma = map(float, cap[:3])
    edges = np.sort([*np.linspace(-2.5, 3.5, 25), gamma])
    normal = np.diff(stats.norm.cdf([-np.inf, *edges, np.inf]))
    is_inside = np.array([*edges, np.inf]) > gamma
    chances = normal * np.where(is_inside, (1 - outside) / tail, outside / (1 - tail))
    counts = np.histogram(sent, [-np.inf, *edges, np.inf])[0]
    assert stats.chisquare(counts, chances / chances.sum() * len(sent)).pvalue > 1e-3
    # which no other direction makes less likely than e^epsilon allows
    assert (chances / normal).max() / (chances / normal).min() < math.exp(epsilon) * (1 + 1e-5)


@pytest.mark.parametrize("rounding", ["stochastic", "sign"])
def test_all_that_signs_may_say_is_about_as_likely_for_any_two_messages(rounding):
    """Enumerated: two coordinates of three values each, all outcomes, at the limit of epsilon."""
    epsilon, number = 1.2, 30_000
    send = sender(randomized_sign(0.5, epsilon, rounding=rounding))
    draws = jax.random.split(jax.random.key(1), number)
    values = (-0.5, 0.1, 0.5)
    chances = {}
    for pair in itertools.product(values, values):
        sent = np.asarray(send({"update": jnp.array(pair)}, draws)["update"])
        outcomes, counts = np.unique(sent > 0, axis=0, return_counts=True)
        assert len(outcomes) == 4
        chances[pair] = counts / number
        x = np.sign(pair) if rounding == "sign" else np.array(pair) / 0.5
        likely = (1 + math.tanh(epsilon / 2) * x) / 2
        exact = [np.where(outcome, likely, 1 - likely).prod() for outcome in outcomes]
        assert stats.chisquare(counts, np.array(exact) * number).pvalue > 1e-3
    ratios = [np.log(a / b).max() for a, b in itertools.permutations(chances.values(), 2)]
    assert max(ratios) == pytest.approx(2 * epsilon, abs=0.1)


def noise_of(round, client):
    """Draws a client's noise in float64 by the documented derivation of keys."""
    key = jax.random.key(0)
    for number in (round, 0, client, 0, keys.UPLINK, 0):
        key = jax.random.fold_in(key, number)
    shapes = {"b": (toy.CLASSES,), "w": (toy.FEATURES, toy.CLASSES)}
    return {
        name: np.asarray(jax.random.normal(jax.random.fold_in(key, number), shape, jnp.float64))
        for number, (name, shape) in enumerate(shapes.items())
    }


COHORTS = [[0, 2, 3], [3, 4, 8, 6], [7]]


@pytest.mark.usefixtures("x64")
def test_rounds_of_gaussian_messages_equal_a_loop_over_clients():
    clip, noise = 0.4, 0.3
    chain = pipeline(local_gaussian(clip, noise), 3)
    run = harness.rounds(FEDAVG, COHORTS, pipeline=chain)
    params = toy.initial_params()
    for round, cohort in enumerate(COHORTS):
        total = reference.zeros(params)
        for client in cohort:
            x, y = toy.clients()[client]
            trained, *_ = reference.local_sgd(params, x, y, lr=0.2, batch_size=4, epochs=1)
            (sent,) = clipped(clip, reference.combine(np.subtract, trained, params))
            assert length(sent) <= clip * (1 + 1e-9)
            drawn = noise_of(round, client)
            total = reference.combine(
                lambda t, x, n: t + x + clip * noise * n, total, sent, drawn
            )  # fmt: skip
        members = len(cohort)
        params = reference.combine(lambda p, t, k=members: p + t / k, params, total)
    toy.assert_close(run.params, params, 1e-9)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("mechanism", "bits"),
    [(privunit(0.4, 3.0), 64 * 28), (randomized_sign(0.1, 1.0, coordinates=7), 7)],
    ids=["privunit", "signs"],
)
def test_layouts_change_nothing(mechanism, bits):
    """A client's data that are not finite count as zero; a bit goes over the wire for a sign."""
    parts = toy.clients()
    parts[3] = (np.full_like(parts[3][0], np.nan), parts[3][1])
    first, second = (
        harness.rounds(FEDAVG, COHORTS, layout, parts=parts, pipeline=pipeline(mechanism, 3))
        for layout in harness.LAYOUTS
    )
    toy.assert_close(second.params, first.params, 1e-9)
    assert all(np.isfinite(leaf).all() for leaf in first.params.values())
    assert first.total("nonfinite", 0) == 1
    assert first.total("uplink_bits", 0) == 3 * bits


@pytest.mark.parametrize(
    "sampler",
    [uniform(30, 7, 3), poisson(30, 7, 3), separated(30, 7, 3, separation=3)],
    ids=["uniform", "poisson", "separated"],
)
def test_participations_are_those_of_the_client_who_is_drawn_most(sampler):
    most, counts, state, found = (
        participations_of(sampler, 30),
        np.zeros(30, int),
        sampler.init(),
        [],
    )
    for round in range(12):
        clients, state = sampler.select(state, round)
        counts[clients] += 1
        found.append(int(counts.max()))
    assert most(12) == found[-1]
    assert [most(rounds) for rounds in range(13)] == [0, *found]
    waiting = Sampler(sampler.init, sampler.select, 7, feedback="delayed")
    assert participations_of(waiting, 30) is None


def promised(mechanism, **facts):
    run = setting(**{"participations": lambda rounds: rounds // 3, "message_size": 6} | facts)
    return mechanism.guarantee(mechanism.hparams, run)


def delta_of_gaussian(epsilon, ratio):
    """Balle and Wang 2018, theorem 8; `ratio` is the sensitivity over the noise."""
    left, right = ratio / 2 - epsilon / ratio, -ratio / 2 - epsilon / ratio
    return stats.norm.cdf(left) - math.exp(epsilon) * stats.norm.cdf(right)


def test_epsilon_of_gaussian_messages_is_that_of_all_a_client_sends():
    """Of five messages, between any two values of the data, which 2 C lie between."""
    guarantee = promised(local_gaussian(0.3, 8.0, delta=1e-5))
    epsilon = guarantee.epsilon(15)["pld"]
    assert delta_of_gaussian(epsilon, 2 * math.sqrt(5) / 8) == pytest.approx(1e-5, rel=1e-3)
    assert (guarantee.unit, guarantee.relation) == ("user", "replace_one")
    assert guarantee.quick(15) == guarantee.epsilon(15)["rdp"] >= epsilon
    assert guarantee.epsilon(2)["pld"] == 0
    bounded = promised(local_gaussian(0.3, 8.0, delta=1e-5, max_participations=2))
    assert bounded.epsilon(100) == bounded.epsilon(6) == guarantee.epsilon(6)
    unknown = promised(local_gaussian(0.3, 8.0, delta=1e-5), participations=None)
    assert unknown.epsilon(5) == guarantee.epsilon(15)


def test_epsilon_of_signs_is_that_of_all_coordinates():
    """Exactly: of k wrong and right answers, (e^eps / (1 + e^eps))^right ..., by binomial sums."""
    epsilon, coordinates, messages = 0.2, 6, 5
    answers = coordinates * messages
    right = np.arange(answers + 1)
    losses = (2 * right - answers) * epsilon
    own = stats.binom.pmf(right, answers, special.expit(epsilon))
    other = stats.binom.pmf(right, answers, special.expit(-epsilon))
    found = promised(randomized_sign(0.1, epsilon, delta=1e-4)).epsilon(15)["pld"]
    exact = optimize.brentq(
        lambda e: np.maximum(own - np.exp(e) * other, 0).sum() - 1e-4, 0, losses[-1]
    )
    assert exact <= found < 1.01 * exact
    few = promised(randomized_sign(0.1, epsilon, delta=1e-4, coordinates=1))
    assert few.epsilon(3)["pld"] == pytest.approx(epsilon, rel=1e-3)


def test_epsilon_of_privunit_is_pure():
    guarantee = promised(privunit(0.3, 2.0, delta=1e-6))
    assert 1.99 < guarantee.epsilon(3)["pld"] <= 2.0 + 1e-9
    assert guarantee.noise_multiplier is None and guarantee.clip_norm == 0.3
    assert guarantee.sampling.endswith("; a message spends epsilon = 2")


@pytest.mark.parametrize(
    ("mechanism", "facts", "message"),
    [
        (privunit(), {"weighting": "examples"}, "weighting='examples': a client would tell"),
        (local_gaussian(), {"weighting": "own"}, "client_weights: a client would tell"),
        (randomized_sign(coordinates=7), {}, "coordinates = 7, but a message has 6"),
        (privunit(delta=1e-3), {}, "delta = 0.001 must be below 1/N"),
    ],
)
def test_runs_that_promise_nothing_are_refused(mechanism, facts, message):
    with pytest.raises(ValueError, match=message):
        promised(mechanism, **facts)


@pytest.mark.parametrize(
    ("make", "given", "message"),
    [
        (local_gaussian, {"noise_multiplier": -1}, "noise_multiplier = -1.0 must be at least 0"),
        (local_gaussian, {"max_participations": 0}, "max_participations = 0 must be at least 1"),
        (privunit, {"message_epsilon": 0}, "message_epsilon = 0.0 must be above 0"),
        (privunit, {"clip_norm": math.inf}, "clip_norm = inf"),
        (randomized_sign, {"value_bound": -1}, "value_bound = -1.0 must be above 0"),
        (randomized_sign, {"rounding": "up"}, "rounding = 'up'"),
        (randomized_sign, {"coordinates": 0}, "coordinates = 0 must be at least 1"),
    ],
)
def test_numbers_out_of_range_are_refused(make, given, message):
    with pytest.raises(ValueError, match=message):
        make(**given)


def simulated(**options):
    parts = toy.clients(sizes=[4 + n % 3 for n in range(24)], dtype=np.float32)
    quiet = {"progress": False, "devices": 1, "lanes": 2, "batch_size": 4, "num_rounds": 4}
    return fljax.simulate(
        toy.dataset(parts),
        toy.softmax_task(np.float32),
        **{"algorithm": FEDAVG, "clients_per_round": 6} | quiet | options,
    )


def test_a_run_of_fixed_cohorts_counts_participations_and_sends_compressed_messages():
    """A step behind the mechanism undoes nothing, by memories of servers too."""
    most = participations_of(uniform(24, 6, 0), 24)
    memory = compression.ef21(compression.uplink(compression.top_k(0.5)), 24)
    run = simulated(
        privacy=local_gaussian(0.5, 4.0, delta=1e-3), pipeline=Pipeline(uplink=(memory,))
    )
    spent = run.curves["privacy/epsilon"]
    steps = [most(rounds) for rounds in range(5)]
    assert (np.diff(spent) > 0).tolist() == (np.diff(steps) > 0).tolist()
    hidden, plain = (
        simulated(
            privacy=local_gaussian(0.5, 4.0, delta=1e-3), secure_aggregation=text, eval_every=0
        )
        for text in ("secure_aggregation(bits=24, clip=16)", None)
    )
    for mine, other in zip(*map(jax.tree.leaves, (hidden.variables, plain.variables)), strict=True):
        np.testing.assert_allclose(mine, other, atol=1e-4)
    assert f"{steps[-1]} of 4" in run.summary["privacy"]["sampling"]
