"""Evaluation against a float64 loop over clients, on one device and on all."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import NamedSharding, PartitionSpec

from fljax import algorithms, tasks
from fljax.core import metrics
from fljax.core.algorithm import Variables
from fljax.core.gradients import LocalTask, bind
from fljax.core.metrics import ACCURACY, LOSS, Metric
from fljax.data.dataset import ArrayExamples, LazyExamples, Partition, Split, offsets_of
from fljax.engine.devices.execution import make_mesh
from fljax.tasks import Measured
from fljax.training import evaluation
from fljax.training.evaluations import make_evaluations
from fljax.training.federation import RoundOptions, build

pytestmark = pytest.mark.usefixtures("quick_compilation", "weights_as_written")

NUM_CLASSES, NUM_FEATURES, NUM_EXAMPLES = 7, 4, 90
# a population with empty clients at both ends and in the middle
SIZES = np.array([0, 5, 1, 0, 31, 2, 13, 0])


def global_split(arrays):
    return Split(ArrayExamples(arrays))


def lazy_split(arrays, partition):
    """The same examples, generated on demand; also returns the list of requests for rows."""
    requests = []

    def generate(rows):
        requests.append(rows)
        return {name: values[rows] for name, values in arrays.items()}

    spec = ArrayExamples(arrays).spec
    return Split(LazyExamples(NUM_EXAMPLES, generate, spec), partition), requests


@pytest.fixture(scope="module")
def arrays():
    generator = np.random.default_rng(0)
    return {
        "x": generator.normal(size=(NUM_EXAMPLES, NUM_FEATURES)).astype(np.float32),
        "y": generator.integers(0, NUM_CLASSES, NUM_EXAMPLES).astype(np.int32),
    }


@pytest.fixture(scope="module")
def split(arrays):
    index = np.random.default_rng(1).permutation(NUM_EXAMPLES)[: SIZES.sum()]
    return Split(ArrayExamples(arrays), Partition(offsets_of(SIZES), index))


@pytest.fixture(scope="module")
def variables():
    weights = np.random.default_rng(2).normal(size=(NUM_FEATURES, NUM_CLASSES))
    return Variables(weights.astype(np.float32), np.float32(0.5))


@pytest.fixture(scope="module", params=["one device", "all devices"])
def mesh(request):
    return make_mesh(1 if request.param == "one device" else 0)


@pytest.fixture(scope="module")
def evaluate(mesh):
    return evaluation.make_evaluate(linear_task, mesh)


def linear_task(frozen):
    """Linear classification with a frozen scale of the logits; two targets in an even example."""

    def measure(params, model_state, batch):
        logits = frozen * (batch["x"] @ params) + model_state
        label, predicted = batch["y"], logits.argmax(1)
        log_likelihood = jnp.take_along_axis(jax.nn.log_softmax(logits), label[:, None], 1)[:, 0]
        above = (logits > jnp.take_along_axis(logits, label[:, None], 1)).sum(1)
        weight = jnp.where(batch["mask"], 2 - label % 2, 0)
        sums = {
            "loss": (-log_likelihood * weight, weight),
            "accuracy": (weight * (label == predicted), weight),
            "top5": (weight * (above < 5), weight),
        }
        confusion = jnp.zeros((NUM_CLASSES, NUM_CLASSES), jnp.int32)
        return Measured(sums, confusion.at[label, predicted].add(weight))

    return LocalTask(None, None, measure)


FROZEN = np.float32(1.5)
HIT_SHARE = Metric("hit_share", value=lambda c: np.trace(c) / c.sum(), of_counts=True)
METRICS = (ACCURACY, HIT_SHARE, LOSS, Metric("top5"))


def reference(arrays, rows, variables):
    """Sums of each row, and the confusion, in float64 and one row at a time."""
    sums = {"loss": [], "weight": [], "accuracy": [], "top5": []}
    confusion = np.zeros((NUM_CLASSES, NUM_CLASSES), np.int64)
    for row in rows:
        label = arrays["y"][row]
        logits = 1.5 * arrays["x"][row].astype(np.float64) @ variables.params.astype(np.float64)
        weight = 2 - label % 2
        order = np.argsort(-logits)
        sums["loss"].append(weight * (np.log(np.exp(logits).sum()) - logits[label]))
        sums["weight"].append(weight)
        sums["accuracy"].append(weight * (order[0] == label))
        sums["top5"].append(weight * (label in order[:5]))
        confusion[label, order[0]] += weight
    weight = np.array(sums.pop("weight"))
    return {name: (np.array(values), weight) for name, values in sums.items()}, confusion


def check(sums, expected):
    for name in ("accuracy", "top5"):
        assert sums[name].value.dtype == sums[name].weight.dtype == np.int32
        jax.tree.map(np.testing.assert_array_equal, tuple(sums[name]), tuple(expected[name]))
    np.testing.assert_array_equal(sums["loss"].weight, expected["loss"][1])
    np.testing.assert_allclose(sums["loss"].value, expected["loss"][0], rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("placement", ["staged", "shared with training"])
def test_matches_a_loop_over_rows(mesh, evaluate, arrays, split, variables, placement):
    shared = placement != "staged"
    data = jax.device_put(arrays, NamedSharding(mesh, PartitionSpec())) if shared else None
    eval_set = evaluation.prepare(split, mesh, 6, data=data)
    outputs = evaluate(variables, FROZEN, eval_set.inputs)
    expected, confusion = reference(arrays, split.rows(), variables)
    check(evaluation.sums_by_row(outputs, eval_set), expected)
    np.testing.assert_array_equal(outputs.counts, confusion)
    result = evaluation.finish(METRICS, outputs, eval_set)
    assert result.keys() == {"accuracy", "hit_share", "loss", "top5"}
    assert result == pytest.approx(metrics.global_metrics(METRICS, expected, confusion), rel=1e-6)
    if shared:
        assert eval_set.inputs.data["x"] is data["x"]
        assert eval_set.inputs.staged is None


def test_matches_a_loop_over_clients(mesh, evaluate, arrays, split, variables):
    eval_set = evaluation.prepare(split, mesh, 6)
    outputs = evaluate(variables, FROZEN, eval_set.inputs)
    result = evaluation.finish_clients(METRICS, outputs, eval_set)
    np.testing.assert_array_equal(result["client"], np.flatnonzero(SIZES))
    np.testing.assert_array_equal(result["examples"], SIZES[SIZES > 0])
    for position, client in enumerate(result["client"]):
        sums, _ = reference(arrays, split.partition.rows(client), variables)
        targets = sums["loss"][1].sum()
        assert result["weight"][position] == targets
        assert result["accuracy"][position] == sums["accuracy"][0].sum() / targets
        assert result["top5"][position] == sums["top5"][0].sum() / targets
        assert result["loss"][position] == pytest.approx(sums["loss"][0].sum() / targets, rel=1e-6)


def test_one_device_and_all_devices_agree(split, variables):
    results = []
    for mesh in (make_mesh(1), make_mesh()):
        eval_set = evaluation.prepare(split, mesh, 8)
        evaluate = evaluation.make_evaluate(linear_task, mesh)
        outputs = evaluate(variables, FROZEN, eval_set.inputs)
        results.append((evaluation.sums_by_row(outputs, eval_set), np.asarray(outputs.counts)))
    (one, one_confusion), (all_, all_confusion) = results
    np.testing.assert_array_equal(one_confusion, all_confusion)
    check(one, all_)


def test_sampled_clients_get_the_numbers_they_get_among_all(mesh, evaluate, split, variables):
    def of(clients):
        eval_set = evaluation.prepare(split, mesh, 6, clients=clients)
        outputs = evaluate(variables, FROZEN, eval_set.inputs)
        return evaluation.finish_clients(METRICS, outputs, eval_set)

    everyone, some = of(None), of([6, 3, 1])
    np.testing.assert_array_equal(some["client"], [1, 6])
    chosen = np.isin(everyone["client"], [1, 6])
    for name, values in some.items():
        np.testing.assert_allclose(values, everyone[name][chosen], rtol=1e-6, err_msg=name)


def test_only_the_needed_rows_are_made(mesh, arrays, split):
    lazy, requests = lazy_split(arrays, split.partition)
    evaluation.prepare(lazy, mesh, 4, clients=[5, 6])
    needed = np.concatenate([split.partition.rows(5), split.partition.rows(6)])
    (made,) = requests
    assert set(made) == set(needed)
    assert len(made) < len(needed) + 4 * mesh.size


@settings(deadline=None, max_examples=40)
@given(num_rows=st.integers(1, 100), batch_size=st.integers(1, 40))
def test_every_row_is_read_once_and_in_order(num_rows, batch_size):
    mesh = make_mesh()
    data = {"y": np.arange(num_rows)}
    inputs = evaluation.prepare(global_split(data), mesh, batch_size, data=data).inputs
    devices, steps, batch = inputs.rows.shape
    assert devices == mesh.size
    assert batch <= batch_size
    assert steps == -(-num_rows // (devices * batch_size))
    rows = np.asarray(inputs.rows)
    real = np.arange(batch) < np.asarray(inputs.counts)[..., None]
    np.testing.assert_array_equal(rows[real], np.arange(num_rows))
    # in the flat order that the host cuts off after the last row
    assert real.reshape(-1)[:num_rows].all()


def test_a_split_without_clients(mesh, evaluate, arrays, variables):
    whole = global_split(arrays)
    eval_set = evaluation.prepare(whole, mesh, 32)
    outputs = evaluate(variables, FROZEN, eval_set.inputs)
    check(evaluation.sums_by_row(outputs, eval_set), reference(arrays, range(90), variables)[0])
    with pytest.raises(ValueError, match="belongs to no clients"):
        evaluation.finish_clients(METRICS, outputs, eval_set)
    with pytest.raises(ValueError, match="no partition"):
        evaluation.prepare(whole, mesh, clients=[0])


def test_a_bound_task_with_preprocessing(mesh, arrays, split):
    """The path a run takes: raw examples, `bind`, a classification task."""

    def init(key):
        return jax.random.normal(key, (NUM_FEATURES, NUM_CLASSES))

    task = tasks.classification((init, lambda params, x: x @ params), NUM_CLASSES)
    params, frozen, model_state = task.init(jax.random.key(0))

    def preprocess(batch):
        return batch | {"x": 1.5 * batch["x"]}

    evaluate = evaluation.make_evaluate(lambda f: bind(task, f, preprocess), mesh)
    eval_set = evaluation.prepare(split, mesh, 6)
    outputs = evaluate(Variables(params, model_state), frozen, eval_set.inputs)
    variables = Variables(np.asarray(params), None)
    sums, confusion = reference(arrays, split.rows(), variables)
    expected = {name: (value / weight, weight / weight) for name, (value, weight) in sums.items()}
    check(evaluation.sums_by_row(outputs, eval_set), expected)
    matrix = confusion // (2 - np.arange(NUM_CLASSES)[:, None] % 2)
    np.testing.assert_array_equal(outputs.counts.hits, np.diagonal(matrix))
    np.testing.assert_array_equal(outputs.counts.actual, matrix.sum(1))
    np.testing.assert_array_equal(outputs.counts.predicted, matrix.sum(0))


def test_counts_do_not_round_as_float32_would(mesh):
    """2^24 + 1 targets an example, more than 2^31 in all."""
    weight = 2**24 + 1

    def task(frozen):
        def measure(params, model_state, batch):
            counts = jnp.where(batch["mask"], weight, 0)
            sums = {"loss": (counts * 1.0, counts), "accuracy": (counts > 0, counts)}
            return Measured(sums, jnp.sum(counts % 2**10))

        return LocalTask(None, None, measure)

    eval_set = evaluation.prepare(global_split({"y": np.zeros(200, np.int32)}), mesh, 16)
    outputs = evaluation.make_evaluate(task, mesh)(Variables((), ()), (), eval_set.inputs)
    sums = evaluation.sums_by_row(outputs, eval_set)
    assert sums["loss"].weight.sum(dtype=np.int64) == 200 * weight
    assert int(outputs.counts) == 200
    assert evaluation.finish([ACCURACY], outputs, eval_set)["accuracy"] == 1 / weight


def test_a_second_model_neither_recompiles_nor_touches_the_host(mesh, split, variables):
    traces = []

    def counting(frozen):
        traces.append(1)
        return linear_task(frozen)

    evaluate = evaluation.make_evaluate(counting, mesh)
    inputs = evaluation.prepare(split, mesh, 16).inputs
    place = NamedSharding(mesh, PartitionSpec())
    models = jax.device_put([variables, jax.tree.map(np.negative, variables)], place)
    frozen = jax.device_put(FROZEN, place)
    first = evaluate(models[0], frozen, inputs)
    traced = len(traces)
    with jax.transfer_guard("disallow"):
        second = evaluate(models[1], frozen, inputs)
    assert len(traces) == traced
    assert not np.array_equal(first.counts, second.counts)


def test_a_stack_of_models_is_evaluated_one_by_one(mesh, evaluate, split, variables):
    inputs = evaluation.prepare(split, mesh, 16).inputs
    models = jax.tree.map(lambda leaf: np.stack([leaf, -leaf]), variables)
    evaluate_all = jax.jit(lambda m: jax.lax.map(lambda model: evaluate(model, FROZEN, inputs), m))
    stacked = evaluate_all(models)
    for number, each in enumerate([variables, jax.tree.map(np.negative, variables)]):
        alone = evaluate(each, FROZEN, inputs)
        np.testing.assert_array_equal(stacked.counts[number], alone.counts)
        np.testing.assert_allclose(
            stacked.sums["loss"].value[number], alone.sums["loss"].value, rtol=1e-6
        )


def test_sampled_clients_are_distinct_and_fixed_by_the_seed():
    sample = evaluation.sample_clients(1000, 50, seed=3)
    assert np.all(np.diff(sample) > 0)
    assert 0 <= sample[0] and sample[-1] < 1000
    np.testing.assert_array_equal(sample, evaluation.sample_clients(1000, 50, seed=3))
    assert set(sample) != set(evaluation.sample_clients(1000, 50, seed=4))
    for count in (-1, 5):
        np.testing.assert_array_equal(evaluation.sample_clients(5, count, seed=3), np.arange(5))
    with pytest.raises(ValueError, match="cannot evaluate 6 of 5 clients"):
        evaluation.sample_clients(5, 6, seed=3)


def test_as_many_clients_are_evaluated_as_asked_for():
    """Of those that have rows in the evaluated split, whatever the seed; more are warned of."""
    data = toy.dataset(toy.clients(dtype=np.float32)).with_validation(0.2)
    with_rows = np.flatnonzero(data.val.partition.sizes)
    assert 1 < len(with_rows) < data.num_clients
    options = RoundOptions(num_rounds=1, clients_per_round=2, batch_size=4)
    spec = algorithms.fedavg(0.1)
    federation = build(data, toy.softmax_task(np.float32), spec, options)
    training = build(
        dataclasses.replace(data, val=None), toy.softmax_task(np.float32), spec, options
    )

    def evaluated(count, seed, federation=federation):
        made = make_evaluations(federation, eval_clients=count, seed=seed)
        return np.unique(made.sets[next(iter(made.by_client))].owners)

    for seed in range(6):
        for count in range(1, len(with_rows) + 1):
            chosen = evaluated(count, seed)
            assert len(chosen) == count and set(chosen) <= set(with_rows)
    np.testing.assert_array_equal(evaluated(-1, 0), with_rows)
    with pytest.warns(UserWarning, match=r"eval_clients = 9, but \d of 9 clients have evaluated"):
        np.testing.assert_array_equal(evaluated(9, 0), with_rows)
    # of training rows, where nothing else is owned
    trained = np.flatnonzero(data.train.partition.sizes)
    np.testing.assert_array_equal(evaluated(len(trained), 0, training), trained)


def test_errors_name_the_cause(arrays, split, monkeypatch):
    mesh = make_mesh(1)
    with pytest.raises(ValueError, match="client 8 .* clients 0 to 7"):
        evaluation.prepare(split, mesh, clients=[1, 8])
    with pytest.raises(ValueError, match="the chosen clients have none"):
        evaluation.prepare(split, mesh, clients=[0, 3])
    monkeypatch.setattr(evaluation, "memory_of", lambda mesh: 1000)
    with pytest.raises(ValueError, match="52 rows of 20 bytes .* Evaluate fewer"):
        evaluation.prepare(split, mesh)
