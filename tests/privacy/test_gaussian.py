"""Gaussian noise on clipped sums, against loops over clients; it depends on nobody who came."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
import toy
from contracts import harness
from privacy.private import clipped, noise_of, pipeline, setting

from fljax import algorithms
from fljax.core.algorithm import Aggregate
from fljax.engine.plan.packed_plan import pack
from fljax.engine.plan.round_plan import job_table
from fljax.privacy import accounting
from fljax.privacy.gaussian import gaussian

pytestmark = pytest.mark.usefixtures("quick_compilation", "weights_as_written")

CLIP, NOISE, MEMBERS = 0.4, 0.7, 3.5
COHORTS = [[0, 2, 3], [], [3, 4, 8, 6], [7]]
SHAPES = {"b": (toy.CLASSES,), "w": (toy.FEATURES, toy.CLASSES)}


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


def private_mean(round, messages, bound=CLIP, cap=1.0, weights=None):
    """Returns the noised mean of messages {name: tree}, by a loop over them."""
    weights = weights or [1.0] * len(messages)
    names = sorted(messages[0]) if messages else ["update"]
    noise = noise_of(round, dict.fromkeys(names, SHAPES))
    total = {
        name: reference.combine(lambda drawn: drawn * NOISE * bound * cap, noise[name])
        for name in names
    }
    for message, weight in zip(messages, weights, strict=True):
        sent = clipped(bound, *(message[name] for name in names))
        for name, tree in zip(names, sent, strict=True):
            total[name] = reference.combine(
                lambda t, x, w=weight: t + min(w, cap) * x, total[name], tree
            )
    return {
        name: reference.combine(lambda t: t / (MEMBERS * cap), tree) for name, tree in total.items()
    }


SPECS = {
    "fedavg": (algorithms.fedavg(0.2, weighting="uniform"), {}, {}),
    "adam": (
        algorithms.fedopt("adam", 0.2, weighting="uniform", server_lr=0.1),
        {},
        {"kind": "adam", "lr": 0.1},
    ),
    "capped": (algorithms.fedavg(0.2), {}, {}),
}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("name", "layout"),
    [("fedavg", harness.ONE), ("adam", harness.ONE), ("capped", harness.MANY)],
)
def test_rounds_equal_a_loop_over_clients(name, layout):
    """A round without clients is a step of noise."""
    spec, local, server = SPECS[name]
    cap = 10.0 if name == "capped" else None
    chain = pipeline(gaussian(CLIP, NOISE, weight_cap=cap), MEMBERS)
    run = harness.rounds(spec, COHORTS, layout, pipeline=chain)
    server = reference.Server(toy.initial_params(), **server)
    for round, cohort in enumerate(COHORTS):
        messages = []
        for client in cohort:
            x, y = toy.clients()[client]
            trained, *_ = reference.local_sgd(
                server.params, x, y, lr=0.2, batch_size=4, epochs=1, **local
            )
            messages.append({"update": reference.combine(np.subtract, trained, server.params)})
        weights = [toy.SIZES[client] for client in cohort] if cap else None
        server.step(private_mean(round, messages, cap=cap or 1.0, weights=weights)["update"])
    toy.assert_close(run.params, server.params, 1e-9)


@pytest.mark.usefixtures("x64")
def test_scaffold_sends_both_of_its_parts_under_one_norm():
    """Noise and denominators of control variates are fixed too; clients keep what they have."""
    lr, cohorts = 0.2, [cohort for cohort in COHORTS if cohort]
    chain = pipeline(gaussian(CLIP, NOISE), MEMBERS)
    run = harness.rounds(algorithms.scaffold(lr), cohorts, pipeline=chain)
    params, control = toy.initial_params(), reference.zeros(toy.initial_params())
    own = [reference.zeros(params) for _ in toy.SIZES]
    participants = sum(size > 0 for size in toy.SIZES)
    for round, cohort in enumerate(cohorts):
        messages = []
        for client in cohort:
            x, y = toy.clients()[client]
            shift = reference.combine(np.subtract, control, own[client])
            trained, *_, steps = reference.local_sgd(
                params, x, y, lr=lr, batch_size=4, epochs=1, shift=shift
            )
            update = reference.combine(np.subtract, trained, params)
            change = reference.combine(lambda c, d, k=steps: -c - d / (k * lr), control, update)
            own[client] = reference.combine(np.add, own[client], change)
            messages.append({"update": update, "control": change})
        means = private_mean(round, messages)
        params = reference.combine(np.add, params, means["update"])
        control = reference.combine(
            lambda c, mean: c + mean * MEMBERS / participants, control, means["control"]
        )
    toy.assert_close(run.params, params, 1e-9)
    server = jax.tree.map(lambda leaf: leaf[0], run.states[-1].server)
    toy.assert_close(server.control, control, 1e-9)


@pytest.mark.usefixtures("x64")
def test_without_bound_and_noise_it_is_fedavg_of_uniform_weights():
    cohorts = [[0, 2, 3], [3, 4, 8]]
    spec = algorithms.fedavg(0.2, weighting="uniform")
    plain = harness.rounds(spec, cohorts)
    private = harness.rounds(spec, cohorts, pipeline=pipeline(gaussian(math.inf, 0.0), 3))
    toy.assert_close(private.params, plain.params, 1e-15)


@pytest.mark.usefixtures("x64")
def test_clients_that_are_not_finite_count_as_zero_and_keep_their_state():
    """In one round all of them; they stay counted as diverged."""
    parts = toy.clients()
    parts[3] = (np.full_like(parts[3][0], np.nan), parts[3][1])
    chain = pipeline(gaussian(CLIP, 0.0), MEMBERS)
    cohorts = [[0, 3], [3], [3, 3]]
    run, without = (
        harness.drive(
            harness.prepare(algorithms.scaffold(0.2), cohorts, parts=parts, pipeline=chain), driven
        )
        for driven in (cohorts, [[0], [], []])
    )
    toy.assert_close(run.params, without.params, 1e-15)
    assert [run.total("nonfinite", round) for round in range(3)] == [1, 1, 2]
    control = run.client_rows().algorithm
    assert all((leaf[3] == 0).all() and leaf[0].any() for leaf in control.values())


def test_noise_has_its_deviation_whatever_the_round():
    """Over 10,000 rounds of zeros: std z C / (q N), independent from round to round."""
    members, rounds = 108.0, 10_000
    link = gaussian(0.3, 2.0).link({"clip_norm": 0.3, "noise_multiplier": 2.0},
                                   setting(539, members))  # fmt: skip
    zeros = {
        name: Aggregate({"w": jnp.zeros((5, 4)), "b": jnp.zeros(3)}, jnp.zeros(()), jnp.zeros(()))
        for name in ("update", "control")
    }

    @jax.jit
    def run(key):
        def one_round(_, round):
            told, _ = link.release(zeros, (), round, jax.random.fold_in(key, round))
            return None, {name: total.mean() for name, total in told.items()}

        return jax.lax.scan(one_round, None, jnp.arange(rounds))[1]

    drawn = jax.device_get(run(jax.random.key(3)))
    drawn = np.concatenate([leaf.reshape(rounds, -1) for leaf in jax.tree.leaves(drawn)], axis=1)
    expected = 2.0 * 0.3 / members
    assert abs(drawn.std() / expected - 1) < 0.02
    assert (abs(drawn.std(axis=0) / expected - 1) < 0.04).all()
    assert abs(drawn.mean()) < 4 * expected / math.sqrt(drawn.size)
    correlated = np.corrcoef(drawn.T) - np.eye(drawn.shape[1])
    assert abs(correlated).max() < 0.05
    following = (drawn[1:] * drawn[:-1]).mean(axis=0) / expected**2
    assert abs(following).max() < 0.05


def test_noise_is_the_same_on_all_layouts_and_when_a_run_goes_on():
    """Of rounds without clients, bit for bit."""
    chain = pipeline(gaussian(CLIP, NOISE), MEMBERS)

    def prepared(layout):
        spec = algorithms.fedavg(0.2, weighting="uniform")
        return harness.prepare(spec, [[0]], layout, pipeline=chain)

    whole, other = (harness.drive(prepared(layout), [[], [], []]) for layout in harness.LAYOUTS)
    second = prepared(harness.MANY)
    second.load(whole.states[1], whole.federation.store.state())
    plan, facts = second.planner.plan(2, job_table([]))
    second.step(second.place(pack(plan)), facts)
    for params in (other.params, toy.params_of(second)):
        jax.tree.map(np.testing.assert_array_equal, whole.params, params)


def test_a_sweep_over_noise_and_clip_norm_compiles_once():
    chain = pipeline(gaussian(CLIP, NOISE), MEMBERS)
    federation = harness.prepare(
        algorithms.fedavg(0.2, weighting="uniform"), [[0, 3]], pipeline=chain
    )
    inputs = federation.inputs
    for number in (0.1, 1.0):
        numbers = {
            **inputs.hparams,
            "clip_norm": jnp.full_like(inputs.hparams["clip_norm"], number),
        }
        federation.inputs = inputs._replace(hparams=numbers)
        harness.drive(federation, [[0, 3]])
    assert federation.program._cache_size() == 1


# Rényi and PLD accountants: 539 writers, q 108 / 539, z 2, 60 rounds, delta 1e-3
def test_the_guarantee_is_that_of_poisson_samples():
    mechanism = gaussian(0.3, 2.0, delta=1e-3)
    run = setting(539, 108.0, num_rounds=60)
    promised = mechanism.guarantee(mechanism.hparams, run)
    assert (promised.unit, promised.relation) == ("user", "add_or_remove_one")
    assert (promised.clip_norm, promised.noise_multiplier, promised.delta) == (0.3, 2.0, 1e-3)
    assert promised.epsilon(60)["pld"] == pytest.approx(2.62, abs=0.005)
    assert promised.quick(60) == promised.epsilon(60)["rdp"] > promised.epsilon(60)["pld"]
    everybody = mechanism.guarantee(mechanism.hparams, setting(539, 539, "uniform"))
    expected = accounting.epsilon([(accounting.gaussian(2.0), 10)], 1e-3)
    assert everybody.epsilon(10)["pld"] == pytest.approx(expected, rel=1e-6)
    free = gaussian(0.3, 0.0)
    assert free.guarantee(free.hparams, run).epsilon(1)["pld"] == math.inf
    assert gaussian(0.3).guarantee(gaussian(0.3).hparams, run).delta == pytest.approx(539**-1.1)


@pytest.mark.parametrize(
    ("options", "run", "message"),
    [
        ({}, {"sampler": "uniform"}, "twice the clip norm.*Use sampler='poisson'"),
        ({}, {"sampler": ""}, "a function of your own.*Use sampler='poisson'"),
        ({}, {"weighting": "examples"}, "weighting='examples' gives .*Use weighting='uniform'"),
        ({}, {"weighting": "own"}, "client_weights, .* gives clients unlike weights.* weight_cap"),
        ({"weight_cap": 9}, {"weighting": "examples", "behind": "links"}, "weight_cap = 9 cannot"),
        ({"delta": 1e-3}, {}, "delta = 0.001 must be below 1/N"),
    ],
)
def test_runs_that_no_theorem_covers_are_refused(options, run, message):
    mechanism = gaussian(0.3, 1.0, **options)
    with pytest.raises(ValueError, match=message):
        mechanism.guarantee(mechanism.hparams, setting(**run))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"clip_norm": 0}, "clip_norm = 0.0 must be above 0"),
        ({"clip_norm": math.nan}, "clip_norm = nan must be above 0"),
        ({"clip_norm": math.inf}, "clip_norm = inf .* noise_multiplier = 1"),
        ({"noise_multiplier": -1}, "noise_multiplier = -1.0 must be at least 0"),
        ({"weight_cap": 0}, "weight_cap = 0.0 must be above 0"),
        ({"delta": 2}, "delta = 2.0 must be above 0 and below 1"),
    ],
)
def test_numbers_out_of_range_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        gaussian(**given)
