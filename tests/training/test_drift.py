"""Drift in records: what three numbers a job tell is what all updates together would."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
import toy
from contracts import harness
from contracts.test_clusters import COHORTS as CLUSTERED
from contracts.test_clusters import ifca
from contracts.test_trials import COHORTS, LAYOUT, SEEDS, interleave

import fljax
from fljax import algorithms
from fljax.compression import qsgd, uplink
from fljax.core.transforms import Aggregator, Pipeline
from fljax.core.trees import all_finite, square_norm
from fljax.training.drift import KEYS, KEYS_OF_WHOLE_UPDATES, drift_record
from fljax.training.record_keys import training_keys
from fljax.training.totals import RoundTotals
from fljax.training.trials import TrialInputs

pytestmark = pytest.mark.usefixtures("quick_compilation", "weights_as_written")

RATE = 0.3


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


def flat(update):
    return np.concatenate([leaf.ravel() for leaf in update.values()])


def updates_of(cohorts, rate=RATE):
    """Returns (updates [jobs, P], weights [jobs]) of each round of FedAvg, client by client."""
    params, found = toy.initial_params(), []
    parts = toy.clients()
    for cohort in cohorts:
        trained = [client for client in cohort if len(parts[client][1])]
        ends = [reference.local_sgd(params, *parts[client], rate, 4, 1)[0] for client in trained]
        changes = [reference.combine(np.subtract, end, params) for end in ends]
        weights = [len(parts[client][1]) for client in trained]
        if changes:
            mean = reference.weighted_mean(changes, weights)
            params = reference.combine(np.add, params, mean)
        found.append((np.array([flat(change) for change in changes]), np.array(weights)))
    return found


def described(updates, weights):
    """Returns the record by its definitions, from all updates."""
    if not len(updates):
        return {}
    norms = np.linalg.norm(updates, axis=1)
    mean = weights @ updates / weights.sum()
    cosines = updates @ mean / (norms * np.linalg.norm(mean))
    spread = np.square(updates - mean).sum(1)
    percentiles = {f"drift/norm_p{p}": np.percentile(norms, p) for p in (10, 50, 90)}
    return percentiles | {
        "drift/norm_mean": norms.mean(),
        "drift/norm_std": norms.std(),
        "drift/norm_max": norms.max(),
        "drift/norm_of_mean": np.linalg.norm(mean),
        "drift/variance": np.average(spread, weights=weights),
        "drift/cosine": np.average(cosines, weights=weights * norms),
        "drift/diverging": 0,
    }


def own(stats, facts, trial=0):
    return {name: values[facts.trials == trial] for name, values in stats[-1].items()}


def record_of(run, round, trial=0):
    return drift_record(own(run.stats[round], run.facts[round], trial), None, RoundTotals())


def test_records_tell_what_all_updates_would(x64):
    cohorts = [[0, 2, 3, 8], [3, 1, 4, 5], [1], [7]]
    run = harness.rounds(algorithms.fedavg(RATE), cohorts, harness.MANY)
    for round, (updates, weights) in enumerate(updates_of(cohorts)):
        assert record_of(run, round) == pytest.approx(described(updates, weights), rel=1e-9)


def test_each_trial_has_its_own(x64):
    rates = (RATE, 0.05)
    specs = [algorithms.fedavg(rate) for rate in rates]
    trials = [TrialInputs(seed, spec.hparams) for seed, spec in zip(SEEDS, specs, strict=True)]
    tables = [interleave(round) for round in range(3)]
    run = harness.rounds(specs[0], tables, LAYOUT, trials=trials)
    for trial, rate in enumerate(rates):
        for round, (updates, weights) in enumerate(updates_of(COHORTS[trial], rate)):
            want = described(updates, weights)
            assert record_of(run, round, trial) == pytest.approx(want, rel=1e-9)


def median(stack, cohort, state):
    return jnp.median(jnp.where(cohort.valid[:, None], stack, jnp.nan), 0), state


@pytest.mark.parametrize(
    ("spec", "pipeline"),
    [
        (algorithms.fedmgda(1.0, RATE), Pipeline()),
        (algorithms.fedavg(RATE), Pipeline(aggregator=Aggregator("stack", median))),
    ],
    ids=["combined", "aggregated"],
)
def test_records_are_of_what_arrives_whatever_rule_makes_one_of_it(x64, spec, pipeline):
    cohorts = [[0, 2, 3, 8]]
    run = harness.rounds(spec, cohorts, harness.MANY, pipeline=pipeline)
    (every_update,) = updates_of(cohorts)
    assert record_of(run, 0) == pytest.approx(described(*every_update), rel=1e-9)


def described_by_cluster(groups):
    """Returns what a record says of agreement, from (updates, weights) of each cluster."""
    deviations, cosines, norms, lengths, weights = [], [], [], [], []
    for updates, own in groups:
        mean = own @ updates / own.sum()
        length = np.linalg.norm(mean)
        deviations += np.square(updates - mean).sum(1).tolist()
        norms += np.linalg.norm(updates, axis=1).tolist()
        cosines += (updates @ mean / (np.linalg.norm(updates, axis=1) * length)).tolist()
        lengths += [length] * len(own)
        weights += own.tolist()
    return {
        "drift/norm_of_mean": np.average(lengths, weights=weights),
        "drift/variance": np.average(deviations, weights=weights),
        "drift/cosine": np.average(cosines, weights=np.multiply(weights, norms)),
    }


def assert_agrees(found, want):
    assert {name: found[name] for name in want} == pytest.approx(want, rel=1e-9)


def updates_from(model, clients):
    """Returns (updates [clients, P], weights [clients]) of clients that start from one model."""
    parts = toy.clients()
    ends = [reference.local_sgd(model, *parts[client], RATE, 4, 1)[0] for client in clients]
    updates = np.array([flat(reference.combine(np.subtract, end, model)) for end in ends])
    return updates, np.array([len(parts[client][1]) for client in clients])


def test_of_clusters_each_update_is_compared_with_its_own(x64):
    run = harness.rounds(ifca(), CLUSTERED)
    chosen = run.by_client("cluster", 0)
    start = toy.initial_params()
    models = [start, reference.combine(np.negative, start)]
    clusters = [[client for client, mine in chosen.items() if mine == n] for n in (0, 1)]
    groups = [updates_from(*each) for each in zip(models, clusters, strict=True)]
    lengths = [np.linalg.norm(weights @ updates / weights.sum()) for updates, weights in groups]
    assert max(lengths) > 1.2 * min(lengths)  # unlike clusters
    assert_agrees(record_of(run, 0), described_by_cluster(groups))


def test_sums_of_single_clients_are_no_clusters(x64):
    """CFL keeps a sum for each client, and clients of a cluster share its model."""
    cohorts = [[0, 2, 3, 4, 5, 6, 7, 8]] * 2
    spec = algorithms.cfl(2, RATE, eps1=10.0, eps2=0.01, min_rounds=1)
    run = harness.rounds(spec, cohorts, harness.MANY)
    first = updates_from(toy.initial_params(), cohorts[0])
    assert_agrees(record_of(run, 0), described(*first))
    # a server tells of clusters as they were when its clients trained
    after = jax.tree.map(lambda leaf: leaf[0], run.states[0].server)
    assert int(after.clusters) == 2
    model = jax.tree.map(lambda leaf: np.asarray(leaf[0]), after.servers.variables.params)
    assigned = np.asarray(after.assigned)
    groups = [
        updates_from(model, [client for client in cohorts[1] if assigned[client] == n])
        for n in (0, 1)
    ]
    assert_agrees(record_of(run, 1), described_by_cluster(groups))


def test_behind_an_uplink_nothing_is_said_of_agreement(x64):
    """Arrivals are no longer what was made: the mean of one and the norms of the other."""
    pipeline = Pipeline(uplink=(uplink(qsgd(4)),))
    cohorts = [[0, 2, 3, 8]]
    run = harness.rounds(algorithms.fedavg(RATE), cohorts, pipeline=pipeline)
    want = described(*updates_of(cohorts)[0])
    found = record_of(run, 0)
    assert set(found) == set(KEYS)
    assert found["drift/norm_mean"] == pytest.approx(want["drift/norm_mean"], rel=1e-9)
    assert found["drift/norm_of_mean"] == pytest.approx(want["drift/norm_of_mean"], rel=0.5)
    data, task = toy.dataset(toy.clients()), toy.softmax_task()
    keys = training_keys(data, task, algorithms.fedavg(RATE), pipeline)
    assert not set(keys) & set(KEYS_OF_WHOLE_UPDATES)
    assert set(keys) >= set(KEYS)


@pytest.mark.parametrize("value", [0.0, 1e-30, 3e30, -3e38, np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16, np.float64, np.int32])
def test_one_reading_tells_norm_and_finiteness(x64, value, dtype):
    if dtype == np.int32:
        value = 7
    tree = {"w": jnp.array([[3.0, value]]).astype(dtype), "b": jnp.array(4.0).astype(dtype)}
    square = square_norm(tree)
    assert bool(jnp.isfinite(square)) == bool(all_finite(tree))
    if abs(value) < 10:
        assert float(square) == pytest.approx(25 + float(value) ** 2, rel=1e-6)


def simulate(rate, **options):
    defaults = {
        "num_rounds": 6, "clients_per_round": 9, "batch_size": 4, "eval_every": 0, "devices": 1,
        "progress": False, "shuffle": False,
    }  # fmt: skip
    data, task = toy.dataset(toy.clients(dtype=np.float32)), toy.softmax_task(np.float32)
    return fljax.simulate(
        data, task, algorithms.fedavg(rate, client_weight_decay=1.0), **(defaults | options)
    )


def test_a_run_that_diverges_says_so_once(tmp_path):
    """Decay makes steps of 2.5 unstable; of a run that is gone on with it has been said."""
    with pytest.warns(UserWarning, match=r"training diverges.*Lower client_lr") as seen:
        run = simulate(2.5, workdir=tmp_path, num_rounds=4)
    said = [str(each.message) for each in seen if "diverges" in str(each.message)]
    first = int(run.rounds[np.argmax(run.curves["drift/diverging"])])
    assert len(said) == 1 and said[0].startswith(f"Round {first}: ")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run = simulate(2.5, workdir=tmp_path, num_rounds=6, resume=True)
    assert run.curves["drift/diverging"].tolist() == (run.rounds >= first).tolist()


@pytest.mark.parametrize("schedule", [None, lambda round: 0.001 + 0.01 * round])
def test_training_that_goes_well_raises_no_alarm(schedule):
    """Norms that grow with the rate, by a schedule, are none."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run = simulate(0.1, client_lr_schedule=schedule)
    assert not np.any(run.curves["drift/diverging"])
