"""Algorithms against drift equal NumPy loops over clients, and FedAvg at their neutral settings."""

import drift_reference
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
import toy
from contracts import harness
from contracts.test_trials import COHORTS as TRIAL_COHORTS
from contracts.test_trials import interleave
from training.test_own_numbers import COHORTS as OWN_COHORTS
from training.test_own_numbers import OWN, of_references

from fljax import algorithms
from fljax.algorithms.moon import contrasted
from fljax.core.algorithm import Variables
from fljax.core.gradients import bind
from fljax.tasks import classification
from fljax.training.trials import TrialInputs

# ragged cohorts with an empty client (1), one of a single row (4), an empty cohort, and an absence
COHORTS = [[0, 1, 2, 3, 8], [], [3, 4, 8, 6], [5, 6, 7, 0, 4]]
LR = 0.2
WORK = {"batch_size": 4, "epochs": 2}
SEEDS = (0, 3)


@pytest.fixture(autouse=True)
def x64(quick_compilation, weights_as_written):
    with jax.enable_x64(True):
        yield


def run(spec, seed=0, cohorts=COHORTS, layout=harness.ONE, **options):
    options |= {"parts": toy.clients(seed=seed), "local_epochs": WORK["epochs"]}
    return harness.rounds(spec, cohorts, layout, **options)


def expected(algorithm, seed=0, **numbers):
    work = WORK | {"lr": LR} | numbers
    return algorithm(toy.initial_params(), toy.clients(seed=seed), COHORTS, **work)


def check(found, want):
    toy.assert_close(found, want, 1e-9)


def rows(run, *names):
    """Returns what clients keep, one tree a client for each name."""
    kept = run.client_rows().algorithm
    parts = [getattr(kept, name) for name in names] if names else [kept]
    return [
        [jax.tree.map(lambda leaf, c=client: leaf[c], part) for client in range(len(toy.SIZES))]
        for part in parts
    ]


def check_rows(found, want):
    """Of clients that take part, what they keep; no one else has moved."""
    for client in range(len(toy.SIZES)):
        check(found[client], want[client])


@pytest.mark.parametrize(
    ("weighting", "seed", "epsilon"), [("examples", 0, 0.01), ("uniform", 3, 0.1)]
)
def test_fedexp(weighting, seed, epsilon):
    numbers = {"epsilon": epsilon, "weighting": weighting}
    want, rates = expected(drift_reference.fedexp, seed, **numbers)
    assert min(rates) == 1 < max(rates)
    check(run(algorithms.fedexp(client_lr=LR, **numbers), seed, layout=harness.MANY).params, want)


def test_fedexp_of_equal_updates_steps_by_one():
    """Then the ratio is a half, and the last of the two iterates FedAvg's."""
    cohorts = [[3, 3, 3], [3, 3]]
    plain = (
        run(algorithms.fedavg(LR), cohorts=cohorts[:1]).params,
        run(algorithms.fedavg(LR), cohorts=cohorts).params,
    )
    extrapolated = run(algorithms.fedexp(client_lr=LR), cohorts=cohorts)
    check(extrapolated.params, reference.combine(lambda a, b: (a + b) / 2, *plain))


@pytest.mark.parametrize(("weighting", "seed"), [("examples", 0), ("uniform", 3)])
def test_fedsam(weighting, seed):
    want = expected(drift_reference.fedsam, seed, rho=0.3, server_lr=0.8, weighting=weighting)
    check(run(algorithms.fedsam(0.3, LR, 0.8, weighting=weighting), seed).params, want)


@pytest.mark.parametrize(("weighting", "seed"), [("uniform", 0), ("examples", 3)])
def test_mofedsam(weighting, seed):
    numbers = {"rho": 0.3, "server_lr": 0.8, "weighting": weighting}
    want, momentum = expected(drift_reference.mofedsam, seed, beta=0.3, **numbers)
    found = run(algorithms.mofedsam(client_lr=LR, gradient_share=0.3, **numbers), seed)
    check(found.params, want)
    kept = found.federation.state.server.momentum
    check(jax.tree.map(lambda leaf: np.asarray(leaf[0]), kept), momentum)


def test_fedspeed():
    numbers = {"mu": 0.5, "rho": 0.3, "server_lr": 0.8}
    want, own = expected(drift_reference.fedspeed, share=0.7, **numbers)
    found = run(algorithms.fedspeed(client_lr=LR, ascent_share=0.7, **numbers))
    check(found.params, want)
    check_rows(rows(found)[0], own)


def test_fedadmm():
    numbers = {"mu": 0.5, "server_lr": 0.8}
    want, models, duals = expected(drift_reference.fedadmm, **numbers)
    found = run(algorithms.fedadmm(client_lr=LR, **numbers))
    check(found.params, want)
    kept = rows(found, "params", "dual")
    check_rows(kept[0], models)
    check_rows(kept[1], duals)


@pytest.mark.parametrize(("weighting", "seed"), [("examples", 0), ("uniform", 3)])
def test_feddc(weighting, seed):
    numbers = {"mu": 0.3, "weighting": weighting}
    want, drifts, controls = expected(drift_reference.feddc, seed, **numbers)
    found = run(algorithms.feddc(client_lr=LR, **numbers), seed, layout=harness.MANY)
    check(found.params, want)
    kept = rows(found, "drift", "control")
    check_rows(kept[0], drifts)
    check_rows(kept[1], controls)


@pytest.mark.parametrize("seed", SEEDS)
def test_delta_sgd(seed):
    numbers = {"gamma": 1.5, "growth": 0.4, "server_lr": 0.8}
    want = expected(drift_reference.delta_sgd, seed, **numbers)
    check(run(algorithms.delta_sgd(LR, 0.8, gamma=1.5, growth=0.4), seed).params, want)


def two_layers():
    """Returns (initial parameters, task) of a network with one hidden layer."""
    generator = np.random.default_rng(5)
    shapes = {"w1": (toy.FEATURES, 5), "b1": 5, "w2": (5, toy.CLASSES), "b2": toy.CLASSES}
    params = {name: 0.5 * generator.standard_normal(shape) for name, shape in shapes.items()}

    def apply(params, x, *, key=None, train=False):
        return jnp.tanh(x @ params["w1"] + params["b1"]) @ params["w2"] + params["b2"]

    init = lambda key: jax.tree.map(jnp.asarray, params)  # noqa: E731
    return params, classification((init, apply), toy.CLASSES)


def test_moon():
    start, task = two_layers()
    numbers = {"mu": 2.0, "temperature": 0.4, "server_lr": 0.8}
    want, ended = drift_reference.moon(start, toy.clients(), COHORTS, lr=LR, **numbers, **WORK)
    found = run(algorithms.moon(client_lr=LR, **numbers), layout=harness.MANY, task=task)
    check(found.params, want)
    check_rows(rows(found, "params")[0], ended)


def test_moon_without_its_contrast_is_fedavg():
    task = two_layers()[1]
    neutral = run(algorithms.moon(0.0, LR), task=task)
    check(neutral.params, run(algorithms.fedavg(LR), task=task).params)


def test_moon_needs_a_layer_before_the_last():
    with pytest.raises(ValueError, match="is the whole model and reads the inputs"):
        run(algorithms.moon())


def test_rows_without_representation_have_no_contrast():
    """Of a row of zeros (all of a ReLU layer off) there is no direction, and no NaN."""
    task = two_layers()[1]
    local = bind(task, {}, like=None)
    start = {"w1": jnp.zeros((toy.FEATURES, 5)), "b1": jnp.zeros(5)}
    start |= {"w2": jnp.ones((5, toy.CLASSES)), "b2": jnp.zeros(toy.CLASSES)}
    model = Variables(start, {})
    batch = {"x": jnp.ones((3, toy.FEATURES)), "y": jnp.zeros(3, int), "mask": jnp.ones(3, bool)}
    both = [contrasted(local, model, model, 1.0, 0.5).gradient, local.gradient]
    found, want = (jax.jit(each)(start, {}, batch, jax.random.key(0))[0] for each in both)
    check(found, want)


NEUTRAL = algorithms.fedsam(0.0, LR), algorithms.delta_sgd(LR, gamma=1e9, growth=0.0)


def test_neutral_settings_are_fedavg():
    plain = run(algorithms.fedavg(LR)).params
    for spec in NEUTRAL:
        check(run(spec).params, plain)


def test_mofedsam_of_gradients_alone_is_fedsam():
    alone = algorithms.mofedsam(0.3, 1.0, LR, weighting="examples")
    check(run(alone).params, run(algorithms.fedsam(0.3, LR)).params)


WITH_NUMBERS = {
    "fedexp": (algorithms.fedexp(0.01, LR), {"epsilon": 0.01}),
    "fedspeed": (algorithms.fedspeed(0.5, 0.3, LR), {"mu": 0.5, "rho": 0.3, "share": 1.0}),
    "fedadmm": (algorithms.fedadmm(0.5, LR), {"mu": 0.5}),
    "feddc": (algorithms.feddc(0.3, LR), {"mu": 0.3}),
    "delta_sgd": (algorithms.delta_sgd(LR), {"gamma": 2.0, "growth": 0.1}),
    "mofedsam": (algorithms.mofedsam(0.3, 0.4, LR), {"rho": 0.3, "beta": 0.4}),
}


@pytest.mark.parametrize("name", WITH_NUMBERS)
def test_own_numbers_of_clients(name):
    """Weights, rates, epochs and batch sizes of each client's own."""
    spec, numbers = WITH_NUMBERS[name]
    algorithm = getattr(drift_reference, name)
    want = algorithm(
        toy.initial_params(), toy.clients(), OWN_COHORTS, **of_references(LR), **numbers
    )
    options = {"devices": 3, "lanes": 2, "wave": 2}
    federation, _ = toy.run_rounds(toy.clients(), spec, OWN_COHORTS, **OWN, **options)
    check(toy.params_of(federation), want[0] if isinstance(want, tuple) else want)


@pytest.mark.parametrize("name", ["fedexp", "feddc"])
def test_trials_of_one_program(name):
    """Of two trials, with numbers and cohorts of their own, each is what it is alone."""
    key = {"fedexp": "epsilon", "feddc": "mu"}[name]
    values, rates = (0.02, 0.3), (LR, 0.05)
    make = getattr(algorithms, name)
    specs = [make(value, rate) for value, rate in zip(values, rates, strict=True)]
    trials = [TrialInputs(0, spec.hparams) for spec in specs]
    tables = [interleave(round) for round in range(3)]
    found = harness.rounds(specs[0], tables, harness.MANY, trials=trials)
    for trial, (value, rate) in enumerate(zip(values, rates, strict=True)):
        want = getattr(drift_reference, name)(
            toy.initial_params(), toy.clients(), TRIAL_COHORTS[trial],
            **{key: value}, lr=rate, batch_size=4, epochs=1,
        )[0]  # fmt: skip
        variables = found.federation.variables_of(trial)
        check(jax.device_get(variables.params), want)


@pytest.mark.parametrize("make", [algorithms.fedspeed, algorithms.fedadmm])
def test_a_coefficient_of_zero_that_divides_is_refused(make):
    with pytest.raises(ValueError, match=r"mu.*0.*above 0 with fed"):
        make(mu=0.0)
