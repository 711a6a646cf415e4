"""Fair and clustered algorithms as they run: on several devices, as trials, resumed, BatchNorm too.

One program of two trials on several devices and lanes is compared with each trial alone on one
lane, whose program all the other tests of an algorithm share.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
from algorithms.test_fairness import dataset_of
from contracts import harness
from contracts.test_trials import COHORTS, SEEDS, interleave

from fljax import algorithms
from fljax.core.network import Network
from fljax.engine.plan.packed_plan import pack
from fljax.recording.checkpoints import Checkpoints
from fljax.tasks import classification
from fljax.training.federation import Federation, RoundOptions, build
from fljax.training.trials import TrialInputs

pytestmark = [
    pytest.mark.usefixtures("quick_compilation", "weights_as_written"),
    pytest.mark.filterwarnings("ignore:lam = 0.03.*asks for less"),
]

LR, RATE = 0.2, 0.9
# Of each algorithm two settings, which differ in numbers alone.
CASES = {
    "q_fedavg": [algorithms.q_fedavg(q, LR, RATE) for q in (2.0, 0.0)],
    "term": [algorithms.term(t, LR, RATE) for t in (1.5, 0.0)],
    "afl": [algorithms.afl(rate, LR, RATE) for rate in (0.02, 0.3)],
    "gifair": [algorithms.gifair(lam, LR, RATE) for lam in (0.03, 0.0)],
    "fedmgda": [algorithms.fedmgda(epsilon, LR, RATE) for epsilon in (0.2, 1.0)],
    "fairfed": [algorithms.fairfed(beta, LR, RATE) for beta in (0.4, 1.0)],
    "cfl": [
        algorithms.cfl(3, LR, RATE, eps1=most, eps2=0.0, gamma_max=0.0, min_rounds=2)
        for most in (1e3, 0.0)
    ],
    "feddrift": [
        algorithms.feddrift(3, LR, RATE, drift_threshold=delta, step_rounds=1)
        for delta in (0.0, 1e9)
    ],
    "fedsoft": [algorithms.fedsoft(2, mu, LR, RATE) for mu in (0.3, 0.1)],
}
# Where the second setting is FedAvg: its weighting.
NEUTRAL = {
    "q_fedavg": "uniform",
    "term": "examples",
    "gifair": "examples",
    "cfl": "examples",
    "feddrift": "examples",
}


@pytest.fixture(autouse=True)
def x64():
    with jax.enable_x64(True):
        yield


def normalized():
    """Returns softmax regression behind batch normalization, of few operations."""

    def init(key):
        params = {"w": jax.random.normal(key, (toy.FEATURES, 2)), "b": jnp.zeros(2)}
        return params, {}, {"mean": jnp.zeros(toy.FEATURES), "var": jnp.ones(toy.FEATURES)}

    def apply(params, frozen, state, x, key, train, mask):
        now = state
        if train:
            share = mask / jnp.maximum(mask.sum(), 1)
            mean = share @ x
            now = {"mean": mean, "var": share @ (x - mean) ** 2}
            state = jax.tree.map(lambda old, new: 0.8 * old + 0.2 * new, state, now)
        unit = (x - now["mean"]) / jnp.sqrt(now["var"] + 1e-5)
        return unit @ params["w"] + params["b"], state

    return Network(init, apply)


@functools.cache
def data_and_task():
    return dataset_of(0), classification(normalized(), 2)


def prepared(spec, tables, layout=harness.ONE, trials=None, seed=0):
    cohorts = [np.asarray(harness._table(table).client) for table in tables]
    options = RoundOptions(
        num_rounds=len(tables), cohorts=cohorts, batch_size=4, clients_per_round=1, seed=seed,
        **layout._asdict(),
    )  # fmt: skip
    return build(*data_and_task(), spec, options, trials)


class Alone(NamedTuple):
    """A run of one setting on one lane.

    Attributes:
      state, variables, rows: The round state, the model, what clients keep, at the end.
      half, num_rows: What a checkpoint has after two of the three rounds; rows of its store.
      federation: That is what it was at the end, or what somebody loads.
    """

    state: Any
    variables: Any
    rows: Any
    half: dict[str, Any]
    num_rows: int
    federation: Federation


_programs = {}


def start(name, number):
    """Returns a federation of one setting on one lane, at its start.

    All of one algorithm have one program, which takes numbers as arguments.
    """
    federation = prepared(CASES[name][number], COHORTS[number], seed=SEEDS[number])
    federation.program = _programs.setdefault(name, federation.program)
    return federation


@functools.cache
def alone(name, number):
    """Returns the run of one setting on one lane."""
    federation = start(name, number)
    go_on(federation, COHORTS[number], [0, 1])
    half = jax.device_get({"server": federation.state, "store": federation.store.state()})
    num_rows = federation.store.num_rows
    go_on(federation, COHORTS[number], [2])
    final = jax.device_get((federation.state, federation.variables))
    return Alone(*final, rows_of(federation), half, num_rows, federation)


def go_on(federation, tables, rounds):
    for round in rounds:
        plan, facts = federation.planner.plan(round, harness._table(tables[round]))
        federation.step(federation.place(pack(plan)), facts)


def rows_of(federation, trial=0):
    return jax.device_get(federation.store.rows_of(np.arange(len(toy.SIZES)), trial))


def assert_same(got, expected):
    """Asserts that trees of host arrays are the same but for the order of sums."""

    def check(a, b):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9 * max(1, np.abs(b).max(initial=0)))

    jax.tree.map(check, got, expected)


@pytest.mark.parametrize("name", CASES)
def test_trials_on_several_devices_are_the_runs_alone(name):
    specs = CASES[name]
    trials = [TrialInputs(seed, spec.hparams) for seed, spec in zip(SEEDS, specs, strict=True)]
    tables = [interleave(round) for round in range(3)]
    together = prepared(specs[0], tables, harness.MANY, trials)
    go_on(together, tables, range(3))
    state = jax.device_get(together.state)
    for number in (0, 1):
        expected = alone(name, number)
        assert_same(jax.tree.map(lambda leaf, n=number: leaf[n : n + 1], state), expected.state)
        assert_same(rows_of(together, number), expected.rows)
    first, second = (together.variables_of(number).params for number in (0, 1))
    assert np.abs(first["w"] - second["w"]).max() > 1e-3


@pytest.mark.parametrize("name", CASES)
def test_resumed_runs_are_the_runs_bit_for_bit(name, tmp_path):
    expected = alone(name, 0)
    resumed = expected.federation
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(2, expected.half)
        checkpoints.wait()
        rows = resumed.store.template(expected.num_rows)
        found, _ = checkpoints.restore(2, {"server": resumed.state, "store": rows})
    resumed.load(found["server"], found["store"])
    go_on(resumed, COHORTS[0], [2])
    same = np.testing.assert_array_equal
    jax.tree.map(same, jax.device_get(resumed.state), expected.state)
    jax.tree.map(same, rows_of(resumed), expected.rows)


@pytest.mark.parametrize("name", NEUTRAL)
def test_neutral_settings_are_fedavg_with_batch_statistics_too(name):
    expected = fedavg(NEUTRAL[name])
    assert_same(alone(name, 1).variables, expected)
    assert np.abs(expected.model_state["mean"]).max() > 0.01


@functools.cache
def fedavg(weighting):
    spec = algorithms.fedavg(LR, RATE, weighting=weighting)
    federation = prepared(spec, COHORTS[1], seed=SEEDS[1])
    go_on(federation, COHORTS[1], range(3))
    return jax.device_get(federation.variables)


def test_batch_statistics_stay_where_all_weights_are_zero():
    """Of clients that count nothing there is no mean, and a variance of zero is none."""
    federation = start("afl", 0)
    state = federation.state
    alone_counts = (np.arange(len(toy.SIZES)) == 5).astype(float)
    server = state.server._replace(mixture=jnp.asarray(alone_counts)[None])
    federation.state = state._replace(server=server)
    before = jax.device_get(state.server.server)
    go_on(federation, COHORTS[0], [0])
    assert 5 not in COHORTS[0][0]
    assert_same(jax.device_get(federation.state.server.server), before)
