"""Rounds with correlated noise, against loops over clients; in layouts, trials and resumed runs."""

import functools
import math
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
import toy
from contracts import harness
from privacy.private import pipeline

import fljax
from fljax import algorithms
from fljax.engine.plan.round_plan import job_table
from fljax.engine.program import keys
from fljax.privacy import accounting
from fljax.privacy.banded import banded_matrix, banded_noise, coefficients
from fljax.privacy.trees import tree_aggregation, tree_noise
from fljax.training.hyperparameters import hyperparameters
from fljax.training.trials import TrialInputs

pytestmark = pytest.mark.usefixtures("quick_compilation", "weights_as_written")

CLIP, NOISE, MEMBERS = 0.4, 0.7, 3.0
COHORTS = [[0, 2, 3], [], [4, 8, 6], [0, 3, 2], [7], [4]]
MECHANISMS = {
    "banded": (banded_matrix(CLIP, NOISE, bands=3, horizon=9), banded_noise(coefficients(9, 3))),
    "independent": (banded_matrix(CLIP, NOISE, bands=1), banded_noise(np.ones(1))),
    "tree": (tree_aggregation(CLIP, NOISE, restart_every=3), tree_noise(3)),
}


@pytest.fixture
def x64(quick_compilation):
    with jax.enable_x64(True):
        yield


def key_of(round, seed=0):
    key = jax.random.key(seed)
    for number in (round, 0, keys.RELEASE, 0):
        key = jax.random.fold_in(key, number)
    return key


def loop(noise, broken=None):
    """Trains by FedAvgM with noisy sums of clipped updates, client by client."""
    parts = toy.clients()
    server = reference.Server(toy.initial_params(), "momentum", lr=0.5, momentum=0.6)
    state = noise.init(jax.tree.map(jnp.asarray, server.params))
    for round, cohort in enumerate(COHORTS):
        drawn, state = noise.draw(state, jnp.int32(round), key_of(round), server.params)
        total = reference.combine(lambda z: NOISE * CLIP * np.asarray(z), drawn)
        for client in cohort:
            if client == broken:
                continue
            trained, *_ = reference.local_sgd(
                server.params, *parts[client], lr=0.2, batch_size=4, epochs=1
            )
            update = reference.combine(np.subtract, trained, server.params)
            length = math.sqrt(sum((leaf**2).sum() for leaf in update.values()))
            scale = min(1, CLIP / length)
            total = reference.combine(lambda t, u, s=scale: t + s * u, total, update)
        server.step(reference.combine(lambda t: t / MEMBERS, total))
    return server.params


SPEC = algorithms.fedopt("momentum", 0.2, 0.5, weighting="uniform", server_momentum=0.6)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("name", "layout"),
    [
        ("independent", harness.ONE),
        ("banded", harness.ONE),
        ("tree", harness.MANY),
    ],
)
def test_rounds_equal_a_loop_over_clients(name, layout):
    """A round without clients has its noise, and a broken client counts as zero."""
    mechanism, noise = MECHANISMS[name]
    parts = toy.clients()
    parts[8] = (np.full_like(parts[8][0], np.nan), parts[8][1])
    chain = pipeline(mechanism, MEMBERS)
    run = harness.rounds(SPEC, COHORTS, layout, parts=parts, pipeline=chain)
    toy.assert_close(run.params, loop(noise, broken=8), 1e-9)
    assert run.total("nonfinite", 2) == 1


@pytest.mark.parametrize("name", ["banded", "tree"])
def test_trials_that_share_a_program_are_the_trials_alone(name):
    """Each has its own noise, of a size of its own, in one program."""
    mechanism, _ = MECHANISMS[name]
    louder = mechanism._replace(hparams={**mechanism.hparams, "noise_multiplier": 2.0})
    chains, seeds = [pipeline(mechanism, MEMBERS), pipeline(louder, MEMBERS)], (0, 7)
    inputs = [
        TrialInputs(seed, hyperparameters(SPEC, chain))
        for seed, chain in zip(seeds, chains, strict=True)
    ]
    tables = [
        job_table(2 * cohort, trial=[0] * len(cohort) + [1] * len(cohort)) for cohort in COHORTS
    ]
    together = harness.rounds(SPEC, tables, trials=inputs, pipeline=chains[0])
    for number in range(2):
        alone = harness.rounds(SPEC, COHORTS, seed=seeds[number], pipeline=chains[number])
        of_trial = jax.tree.map(lambda leaf, n=number: leaf[n : n + 1], together.states[-1])
        toy.assert_close(of_trial.server, alone.states[-1].server, 1e-5)


@pytest.mark.parametrize("name", ["banded", "tree"])
def test_what_is_not_covered_is_refused(name):
    chain = pipeline(MECHANISMS[name][0], MEMBERS)
    with pytest.raises(ValueError, match="'control'"):
        harness.rounds(algorithms.scaffold(0.2), COHORTS, pipeline=chain)


def train(workdir, mechanism, num_rounds=8, **options):
    parts = toy.clients(sizes=[4 + n % 3 for n in range(24)], dtype=np.float32)
    return fljax.simulate(
        toy.dataset(parts),
        toy.softmax_task(np.float32),
        SPEC,
        num_rounds=num_rounds,
        clients_per_round=8,
        sampler="separated",
        separation=3,
        batch_size=4,
        devices=1,
        lanes=2,
        workdir=workdir,
        eval_every=4,
        checkpoint_every=2,
        progress=False,
        privacy=mechanism,
        **options,
    )


def stop_after(round):
    def hook(federation, record):
        if record["round"] == round:
            os.kill(os.getpid(), signal.SIGINT)

    return hook


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    """The run of a mechanism by name that nothing interrupts."""
    return functools.cache(lambda name: train(tmp_path_factory.mktemp(name), MECHANISMS[name][0]))


@pytest.mark.parametrize("name", ["banded", "tree"])
def test_a_resumed_run_is_the_uninterrupted_one(name, tmp_path, whole_run):
    """Interrupted within a tree, and between bands; epsilon goes on as well."""
    mechanism, whole = MECHANISMS[name][0], whole_run(name)
    half = train(tmp_path / "parts", mechanism, hooks=(stop_after(4),))
    assert half.interrupted
    resumed = train(tmp_path / "parts", mechanism, resume=True)
    jax.tree.map(np.testing.assert_array_equal, whole.variables, resumed.variables)
    spent = whole.curves["privacy/epsilon"]
    np.testing.assert_array_equal(resumed.curves["privacy/epsilon"], spent)
    facts = {"relation": "replace_special", "unit": "user", "noise_multiplier": NOISE}
    assert facts.items() <= whole.summary["privacy"].items() and spent[-1] > spent[1] > 0


def test_a_budget_finds_the_noise_of_each_mechanism(tmp_path):
    """Of 8 rounds a client takes part in 3; nodes of a tree of 3 rounds hold one of its turns."""
    exact = {"banded_matrix": math.sqrt(3), "tree_aggregation": math.sqrt(3 + 2 + 3)}
    for name, moved in exact.items():
        run = train(tmp_path / name, f"{name}(0.4)", target_epsilon=4.0, delta=1e-2, num_rounds=8)
        noise = run.summary["privacy"]["noise_multiplier"]
        found = accounting.epsilon_of_gaussian(noise / moved, 1e-2)
        assert 3.98 < found <= 4.0


def test_a_run_goes_on_for_longer_where_its_strategy_has_a_horizon(tmp_path, whole_run):
    """Then it is the longer run bit for bit; without one its strategy would be another."""
    mechanism, _ = MECHANISMS["banded"]
    train(tmp_path / "short", mechanism, num_rounds=4)
    longer = train(tmp_path / "short", mechanism, resume=True)
    whole = whole_run("banded").variables
    jax.tree.map(np.testing.assert_array_equal, whole, longer.variables)
    planned = banded_matrix(CLIP, NOISE, bands=3)
    train(tmp_path / "planned", planned, num_rounds=4)
    with pytest.raises(ValueError, match="num_rounds of privacy was 4 and is 8"):
        train(tmp_path / "planned", planned, resume=True)
