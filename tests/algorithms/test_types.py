"""Leaves of every type: sums in float32 at least, one rounding, the same in every layout."""

import os
import signal

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import reference
import toy
from contracts import harness
from contracts.harness import Layout

import fljax
import fljax.compression as c
from fljax import algorithms
from fljax.core.algorithm import Contribution
from fljax.core.metrics import LOSS
from fljax.core.precision import rounded
from fljax.core.transforms import Aggregator, Pipeline, UplinkLink
from fljax.data.dataset import ArrayExamples, FederatedDataset, Partition, Split
from fljax.engine.plan.round_plan import job_table
from fljax.tasks import Measured, Task
from fljax.training.federation import RoundOptions, build
from fljax.training.trials import TrialInputs

pytestmark = pytest.mark.usefixtures("quick_compilation", "weights_as_written")

LR, BATCH = 0.25, 64
SIZES = (4096, 64, 4, 0, 256, 128)
COHORTS = [[0, 1, 2, 3], [4, 2, 5], [1, 0, 5, 4]]
LAYOUTS = (harness.ONE, harness.MANY)

# values times weights overflow int32 and float16, and exceed the digits of their types
PARAMS = {
    "float32": np.array([0.1, -300.0], np.float32),
    "bfloat16": np.array([1.0, 300.0], ml_dtypes.bfloat16),
    "float16": np.array([0.5, 900.0], np.float16),
}
STATE = {
    "steps": np.int32(1_000_000),
    "large": np.array([2**31 - 1, -(2**31), 123_456_789], np.int32),
    "unsigned": np.array([2**32 - 10_000, 7], np.uint32),
    "small": np.int8(100),
    "byte": np.uint8(200),
    "seen": np.array([True, False, False]),
    "half": np.array([300.0, 0.5], np.float16),
    "brain": np.array([1000.0, 3.0], ml_dtypes.bfloat16),
    "single": np.float32(0.1),
}


def parts():
    """Returns clients whose features are small integers: means of a batch are exact."""
    generator = np.random.default_rng(0)
    return [generator.integers(-8, 9, (size, 2)).astype(np.float32) for size in SIZES]


def dataset():
    columns = parts()
    examples = ArrayExamples({"x": np.concatenate(columns)})
    offsets = np.concatenate([[0], np.cumsum(SIZES)])
    train = Split(examples, Partition(offsets, None))
    return FederatedDataset("typed", "classification", 2, train, Split(examples, None))


def trained_state(state, mean, maximum):
    """Returns what a step makes of the model's state, for NumPy and JAX alike."""
    return {
        "steps": state["steps"] + 1,
        "large": state["large"] * 1,
        "unsigned": state["unsigned"] + 2,
        "small": state["small"] + (mean[0] > 0),
        "byte": state["byte"] - 1,
        "seen": state["seen"] | (maximum > 7),
        "half": state["half"] + mean * 0.125,
        "brain": state["brain"] - 1,
        "single": state["single"] + mean[1],
    }


def task(params=PARAMS, state=STATE):
    """Returns a task of a loss that is linear in the parameters, whose state has every type."""

    def init(key):
        return jax.tree.map(jnp.asarray, (params, {}, state))

    def loss(params, frozen, state, batch, key, train):
        x = batch["x"] * batch["mask"][:, None]
        values = sum(x @ leaf.astype(jnp.float32) for leaf in params.values())
        counts = batch["mask"].astype(jnp.int32)
        mean = x.sum(0) / jnp.maximum(counts.sum(), 1)
        new = trained_state(state, mean, x.max()) if state else state
        return (values, counts), rounded(new, state)

    def measure(params, frozen, state, batch):
        return Measured({"loss": loss(params, frozen, state, batch, None, False)[0]})

    return Task(init, loss, measure, (LOSS,), "own", num_classes=2)


def double(leaf):
    return leaf if leaf.dtype.kind in "iub" else np.asarray(leaf, np.float64)


def local_work(params, state, x, shift):
    """One epoch; after each step parameters and state are rounded to their own types."""
    for start in range(0, len(x), BATCH):
        rows = x[start : start + BATCH].astype(np.float64)
        mean = rows.mean(0)
        params = {
            name: (double(leaf) - LR * (double(mean.astype(leaf.dtype)) + shift[name])).astype(
                leaf.dtype
            )
            for name, leaf in params.items()
        }
        new = trained_state({k: double(leaf) for k, leaf in state.items()}, mean, rows.max())
        state = {name: np.asarray(leaf).astype(state[name].dtype) for name, leaf in new.items()}
    return params, state


def expected(scaffold=False):
    """Returns (parameters, state) after all rounds; means in float64, each rounded once."""
    params, state, clients = PARAMS, STATE, parts()
    nothing = {name: np.zeros(2) for name in PARAMS}
    control, own = nothing, [nothing] * len(clients)
    for cohort in COHORTS:
        present = [client for client in cohort if SIZES[client]]
        weights = [1 if scaffold else SIZES[client] for client in present]
        trained, drifts = [], []
        for client in present:
            shift = reference.combine(np.subtract, control, own[client])
            trained.append(local_work(params, state, clients[client], shift))
            drifts.append(
                reference.combine(
                    lambda c, start, end, steps=-(-SIZES[client] // BATCH): (
                        -c - (double(end) - double(start)) / (LR * steps)
                    ),
                    control, params, trained[-1][0],
                )
            )  # fmt: skip
        if scaffold:
            for client, drift in zip(present, drifts, strict=True):
                own[client] = reference.combine(np.add, own[client], drift)
                control = reference.combine(
                    lambda c, d: c + d / np.count_nonzero(SIZES), control, drift
                )
        params, state = (
            {
                name: reference.mean_in_type(
                    [variables[part][name] for variables in trained], weights, leaf
                )
                for name, leaf in old.items()
            }
            for part, old in enumerate((params, state))
        )
    return params, state


def assert_same(found, want):
    """Integers and truth values are equal, half precision but for a unit in the last place."""
    assert found.keys() == want.keys()
    for name, leaf in want.items():
        got = np.asarray(found[name])
        assert got.dtype == leaf.dtype, name
        if leaf.dtype.kind in "iub":
            np.testing.assert_array_equal(got, leaf, err_msg=name)
            continue
        rtol = max(float(jnp.finfo(leaf.dtype).eps), 1e-6)
        np.testing.assert_allclose(double(got), double(leaf), rtol=rtol, err_msg=name)


def run(spec, layout=harness.ONE, trials=None, **options):
    tables = [job_table(cohort) for cohort in COHORTS]
    if trials:
        tables = [
            job_table([*cohort, *cohort], trial=[*[0] * len(cohort), *[1] * len(cohort)])
            for cohort in COHORTS
        ]
    options = {"batch_size": BATCH, "shuffle": False, "clients_per_round": 1} | options
    federation = build(
        dataset(),
        task(),
        spec,
        RoundOptions(
            num_rounds=len(COHORTS),
            cohorts=[np.asarray(table.client) for table in tables],
            **layout._asdict(),
            **options,
        ),
        trials,
    )
    harness.drive(federation, tables)
    return federation


def weighted(stack, cohort, state):
    share = cohort.weights / jnp.maximum(cohort.weights.sum(), 1)
    return (stack * share[:, None]).sum(0), state


@pytest.mark.parametrize("layout", LAYOUTS)
def test_means_are_those_of_float64_in_every_layout(layout):
    found = jax.device_get(run(algorithms.fedavg(LR), layout).variables)
    for got, want in zip(found, expected(), strict=True):
        assert_same(got, want)


def test_means_are_the_same_of_a_stack():
    pipeline = Pipeline(aggregator=Aggregator("stack", weighted))
    found = jax.device_get(run(algorithms.fedavg(LR), harness.MANY, pipeline=pipeline).variables)
    for got, want in zip(found, expected(), strict=True):
        assert_same(got, want)


def test_means_are_the_same_of_trials_side_by_side():
    spec = algorithms.fedavg(LR)
    trials = [TrialInputs(0, spec.hparams), TrialInputs(1, spec.hparams)]
    federation = run(spec, Layout(2, 2, 3), trials)
    for number in range(2):
        found = jax.device_get(federation.variables_of(number))
        for got, want in zip(found, expected(), strict=True):
            assert_same(got, want)


def test_control_variates_of_half_precision_are_float32():
    federation = run(algorithms.scaffold(LR), harness.MANY)
    found = jax.device_get(federation.variables)
    for got, want in zip(found, expected(scaffold=True), strict=True):
        assert_same(got, want)
    kept = (federation.state.server.control, federation.store.rows_of(np.arange(6)).algorithm)
    assert {leaf.dtype for leaf in jax.tree.leaves(kept)} == {jnp.dtype(jnp.float32)}


def half(dtype):
    """Returns softmax regression with parameters of half precision."""
    base = toy.softmax_task(np.float32)

    def init(key):
        params, frozen, state = base.init(key)
        return jax.tree.map(lambda leaf: leaf.astype(dtype), params), frozen, state

    return base._replace(init=init)


def test_optimizers_of_half_precision_step_in_float32():
    """Moments too: in bfloat16 a second moment stops moving."""
    spec = algorithms.fedopt("adam", 0.1, 0.01, client_momentum=0.9)
    cohorts = [[0, 2, 3], [3, 4, 5]] * 4
    found = [
        toy.run_rounds(toy.clients(dtype=np.float32), spec, cohorts, task=half(dtype), devices=1)[0]
        for dtype in (jnp.bfloat16, jnp.float32)
    ]
    states = [jax.tree.leaves(federation.state.server.opt_state) for federation in found]
    assert [leaf.dtype for leaf in states[0]] == [leaf.dtype for leaf in states[1]]
    got, want = (federation.variables.params for federation in found)
    assert {leaf.dtype for leaf in jax.tree.leaves(got)} == {jnp.dtype(jnp.bfloat16)}
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(double(a), b, rtol=0.05, atol=0.05), got, want
    )


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_what_links_remember_of_half_precision_is_float32(dtype):
    pipeline = Pipeline(
        downlink=(c.downlink_difference(c.qsgd(8)),),
        uplink=(c.error_feedback(c.uplink(c.top_k(0.3))),),
    )
    federation, stats = toy.run_rounds(
        toy.clients(dtype=np.float32), algorithms.fedavg(0.1), [[0, 2, 3], [3, 4]],
        task=half(dtype), pipeline=pipeline, devices=2,
    )  # fmt: skip
    kept = (federation.state.pipeline, federation.store.rows_of(np.arange(9)).uplink)
    assert {leaf.dtype for leaf in jax.tree.leaves(kept)} == {jnp.dtype(jnp.float32)}
    assert not stats[-1][-1]["nonfinite"].any()
    assert {leaf.dtype for leaf in jax.tree.leaves(federation.variables)} == {jnp.dtype(dtype)}


def test_integers_of_linear_links_are_summed_as_integers():
    """Masks that cancel modulo 2^32: nothing of the sum may be rounded."""

    def encode(value, state, job, key):
        codes = jax.tree.map(lambda leaf: jnp.round(leaf * 2**10).astype(jnp.int32), value)
        mask = jnp.where(job.position == 0, 2_000_000_011, -2_000_000_011).astype(jnp.int32)
        return jax.tree.map(lambda leaf: leaf + mask, codes), state

    masked = UplinkLink(
        encode, lambda total, state: jax.tree.map(lambda leaf: leaf / 2.0**10, total), linear=True
    )
    spec = algorithms.fedavg(0.2, weighting="uniform")
    runs = [
        toy.run_rounds(toy.clients(dtype=np.float32), spec, [[0, 2]], task=half(jnp.float32),
                       pipeline=pipeline, devices=2)[0]
        for pipeline in (Pipeline(uplink=(masked,)), Pipeline())
    ]  # fmt: skip
    got, want = (toy.params_of(run) for run in runs)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=2**-10), got, want)


@pytest.mark.parametrize(
    ("params", "state", "message"),
    [
        (PARAMS | {"n": np.int32(3)}, {}, r"params\['n'\] is of type int32.*no gradient"),
        (PARAMS | {"z": np.complex64(1j)}, {}, r"params\['z'\] is of type complex64"),
        (PARAMS, {"deep": {"key": jax.random.key(0)}}, r"model_state\['deep'\]\['key'\] is a PRNG"),
        (PARAMS, {"z": np.complex64(1j)}, r"model_state\['z'\] is of type complex64.*no mean"),
    ],
)
def test_what_has_no_mean_is_refused_by_name(params, state, message):
    options = RoundOptions(num_rounds=1, clients_per_round=2, batch_size=4)
    with pytest.raises(ValueError, match=message):
        build(dataset(), task(params, state), algorithms.fedavg(LR), options)


def test_keys_that_clients_keep_or_send_are_refused_by_name():
    spec = algorithms.fedavg(LR)

    def keeps(task, hp):
        return spec.build(task, hp)._replace(init_client=lambda variables: jax.random.key(0))

    def sends(task, hp):
        algorithm = spec.build(task, hp)
        (local,) = algorithm.passes

        def finish(message, carry, job):
            sent, kept, stats = local.finish(message, carry, job)
            return sent | {"key": Contribution({"k": job.key}, carry.weight)}, kept, stats

        return algorithm._replace(passes=(local._replace(finish=finish),))

    for build_own, message in (
        (keeps, "What a client keeps has a PRNG key"),
        (sends, r"key\['value'\]\['k'\]"),
    ):
        with pytest.raises(ValueError, match=message):
            toy.run_rounds(toy.clients(), spec._replace(build=build_own), [[0, 2]])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"w": np.full((6, 4), 1e300)}, r"initial_params at \['w'\] have 24 numbers.*float32"),
        ({"w": np.full((6, 4), np.nan)}, "24 numbers that are not finite"),
        ({"w": np.full((6, 4), 1j)}, r"no real numbers at \['w'\], but complex128"),
        ({"w": np.full((6, 4), "a")}, r"no real numbers at \['w'\], but <U1"),
    ],
)
def test_initial_params_out_of_range_are_refused(given, message):
    options = {"initial_params": toy.initial_params(np.float32) | given}
    with pytest.raises(ValueError, match=message):
        toy.run_rounds(
            toy.clients(), algorithms.fedavg(0.1), [[0]], task=half(jnp.float32), **options
        )


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int64, bool])
def test_initial_params_take_the_types_of_the_model(dtype):
    given = jax.tree.map(lambda leaf: np.round(leaf).astype(dtype), toy.initial_params())
    options = RoundOptions(num_rounds=1, clients_per_round=2, batch_size=4, initial_params=given)
    data = toy.dataset(toy.clients(dtype=np.float32))
    federation = build(data, half(jnp.bfloat16), algorithms.fedavg(0.1), options)
    for name, leaf in federation.variables.params.items():
        assert leaf.dtype == jnp.bfloat16
        np.testing.assert_array_equal(double(np.asarray(leaf)), double(given[name]))


def test_a_run_of_every_type_resumes_as_it_was(tmp_path):
    options = {
        "cohorts": COHORTS, "clients_per_round": 4, "batch_size": BATCH, "progress": False,
        "num_rounds": 3, "eval_every": 1, "devices": 2,
    }  # fmt: skip
    whole = fljax.simulate(dataset(), task(), algorithms.scaffold(LR), **options)

    def stop(federation, record):
        if record["round"] == 2:
            os.kill(os.getpid(), signal.SIGINT)

    fljax.simulate(
        dataset(), task(), algorithms.scaffold(LR), workdir=tmp_path, hooks=(stop,), **options
    )
    resumed = fljax.simulate(
        dataset(), task(), algorithms.scaffold(LR), workdir=tmp_path, resume=True, **options
    )
    for got, want in zip(*map(jax.tree.leaves, (resumed.variables, whole.variables)), strict=True):
        assert got.dtype == want.dtype
        np.testing.assert_array_equal(double(np.asarray(got)), double(np.asarray(want)))
