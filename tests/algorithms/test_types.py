"""Leaves of every type: sums in float32 at least, one rounding, the same in every layout."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import reference
from contracts import harness
from contracts.harness import Layout

from fljax import algorithms
from fljax.core.precision import rounded
from fljax.data.dataset import ArrayExamples, FederatedDataset, Partition, Split
from fljax.engine.pipeline import Aggregator, Pipeline
from fljax.engine.plan import job_table
from fljax.federation import RoundOptions, build
from fljax.metrics import ClassCounts
from fljax.sources import Source
from fljax.tasks import Metrics, Task

pytestmark = pytest.mark.usefixtures("quick_compilation")

LR, BATCH = 0.25, 64
SIZES = (4096, 64, 4, 0, 256, 128)
COHORTS = [[0, 1, 2, 3], [4, 2, 5], [1, 0, 5, 4]]
LAYOUTS = (harness.ONE, harness.MANY, Layout(8, 2, 2))

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
    """What a step makes of the model's state, for NumPy and JAX alike."""
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

    def metrics(params, frozen, state, batch):
        (values, counts), _ = loss(params, frozen, state, batch, None, False)
        sums = {"loss": values, "weight": counts, "correct": counts, "correct_top5": counts}
        none = jnp.zeros(2, jnp.int32)
        return Metrics(sums, ClassCounts(none, none, none))

    return Task(init, loss, metrics, 2, "own")


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
                name: reference.mean_in_type([one[part][name] for one in trained], weights, leaf)
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


def run(spec, layout=harness.ONE, sources=None, **options):
    tables = [job_table(cohort) for cohort in COHORTS]
    if sources:
        tables = [
            job_table([*cohort, *cohort], source=[*[0] * len(cohort), *[1] * len(cohort)])
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
        sources,
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
    sources = [Source(0, spec.hparams), Source(1, spec.hparams)]
    federation = run(spec, Layout(2, 2, 3), sources)
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
