"""Baselines: as much training as the federated run, and exactly the training they claim."""

import os
import signal

import jax
import numpy as np
import optax
import pytest
import reference
import toy

import fljax
from fljax import algorithms

pytestmark = pytest.mark.usefixtures("quick_compilation", "weights_as_written")

COHORTS = [[0, 2, 3], [1, 4, 5, 6], [3, 8, 7, 2], [5, 0, 4, 7]]
NAMES = ("centralized", "local_only")
LR, BATCH, EPOCHS = 0.2, 4, 2


def simulate(parts=None, task=None, algorithm=None, **options):
    defaults = {
        "num_rounds": len(COHORTS),
        "clients_per_round": 4,
        "cohorts": COHORTS,
        "batch_size": BATCH,
        "local_epochs": EPOCHS,
        "shuffle": False,
        "eval_every": 2,
        "progress": False,
        "devices": 1,
        "baselines": NAMES,
    }
    data = toy.dataset(toy.clients(dtype=np.float32) if parts is None else parts)
    task = task or toy.softmax_task(np.float32)
    return fljax.simulate(data, task, algorithm or algorithms.fedavg(LR), **(defaults | options))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return simulate(workdir=tmp_path_factory.mktemp("runs") / "one", devices=2)


def pooled():
    return tuple(np.concatenate(column) for column in zip(*toy.clients(), strict=True))


def mean_loss_and_accuracy(params, x, y):
    correct = (x @ params["w"] + params["b"]).argmax(1) == y
    return reference.loss_and_gradient(params, x, y)[0] / len(y), correct.mean()


def test_baselines_take_the_steps_of_the_federated_run(run):
    assert tuple(run.baselines) == NAMES
    steps = run.curves["train/local_steps"][1:]
    want = [sum(EPOCHS * -(-toy.SIZES[client] // BATCH) for client in cohort) for cohort in COHORTS]
    assert steps.tolist() == want
    for baseline in run.baselines.values():
        assert baseline.curves["train/local_steps"][1:].tolist() == want
        assert baseline.rounds.tolist() == run.rounds.tolist()


def test_centralized_is_sgd_on_the_pooled_rows(run):
    """Each round takes its steps in epochs over all rows, in stored order, from the first on."""
    params, (x, y) = toy.initial_params(), pooled()
    for number, steps in enumerate(run.curves["train/local_steps"][1:].astype(int), start=1):
        epochs = -(-steps * BATCH // len(y)) + 1
        taken = list(reference.batches(x, y, BATCH, epochs))[:steps]
        total = 0.0
        for batch in taken:
            loss, gradient = reference.loss_and_gradient(params, *batch)
            params = reference.combine(lambda p, g: p - LR * g, params, gradient)
            total += loss
        rows = sum(len(labels) for _, labels in taken)
        found = run.baselines["centralized"].curves["train/loss"][number]
        assert found == pytest.approx(total / rows, rel=1e-4)
    found = jax.device_get(run.baselines["centralized"].variables.params)
    toy.assert_close(found, params, 1e-4)
    final = run.baselines["centralized"].summary["final"]
    loss, accuracy = mean_loss_and_accuracy(params, x, y)
    assert final["eval/test/loss"] == pytest.approx(loss, rel=1e-4)
    assert final["eval/test/accuracy"] == pytest.approx(accuracy)


def test_local_only_is_sgd_of_every_client_on_its_own(run):
    """The mean over all clients with rows, those that were never chosen included."""
    models = [toy.initial_params() for _ in toy.SIZES]
    for cohort in COHORTS:
        for client in cohort:
            x, y = toy.clients()[client]
            models[client] = reference.local_sgd(models[client], x, y, LR, BATCH, EPOCHS)[0]
    found = [
        mean_loss_and_accuracy(model, *pooled())
        for model, size in zip(models, toy.SIZES, strict=True)
        if size
    ]
    loss, accuracy = np.mean(found, axis=0)
    final = run.baselines["local_only"].summary["final"]
    assert final["eval/test/loss"] == pytest.approx(loss, rel=1e-4)
    assert final["eval/test/accuracy"] == pytest.approx(accuracy)


def test_baselines_send_nothing(run):
    assert run.summary["uplink_bytes"] > 0
    for baseline in run.baselines.values():
        assert baseline.summary["uplink_bytes"] == baseline.summary["downlink_bytes"] == 0
        for key, curve in baseline.curves.items():
            assert not key.startswith("comm/") or not np.nansum(curve), key


def test_baselines_are_runs_beneath_the_run(run):
    read = fljax.load_run(run.directory)
    assert set(read.baselines) == set(NAMES)
    for name, baseline in read.baselines.items():
        assert baseline.directory == run.directory / "baselines" / name
        assert baseline.config["baseline"] == name
        np.testing.assert_array_equal(
            baseline.curves["eval/test/loss"], run.baselines[name].curves["eval/test/loss"]
        )


def test_a_finished_run_resumes_with_its_baselines(run):
    before = {path: path.read_bytes() for path in run.directory.rglob("metrics.jsonl")}
    assert len(before) == 3
    again = simulate(workdir=run.directory, resume=True, devices=2)
    assert {path: path.read_bytes() for path in before} == before
    for name in NAMES:
        assert again.baselines[name].summary["final"] == run.baselines[name].summary["final"]


def test_a_baseline_that_was_interrupted_goes_on(run, tmp_path):
    def stop(federation, record):
        if (federation.spec.name, record["round"]) == ("centralized", 2):
            os.kill(os.getpid(), signal.SIGINT)

    stopped = simulate(workdir=tmp_path, hooks=(stop,), devices=2)
    assert stopped.interrupted and set(stopped.baselines) == {"centralized"}
    resumed = simulate(workdir=tmp_path, resume=True, devices=2)
    assert not resumed.interrupted
    for name in NAMES:
        assert resumed.baselines[name].summary["final"] == run.baselines[name].summary["final"]


def test_models_that_need_full_batches_have_baselines():
    task = toy.softmax_task(np.float32)._replace(needs_full_batches=True)
    run = simulate(task=task, remainder="drop", batch_size=5, baselines=("centralized",))
    found = run.baselines["centralized"].curves["train/local_steps"][1:]
    assert found.tolist() == run.curves["train/local_steps"][1:].tolist()


def with_decay(hp):
    return optax.chain(optax.add_decayed_weights(hp["decay"]), optax.sgd(hp["client_lr"]))


@pytest.mark.parametrize("make", [algorithms.fedopt, algorithms.fedprox])
def test_baselines_use_the_clients_optimizer(make):
    """One local step a round on one batch: full-batch descent with weight decay, for either."""
    spec = make(client_lr=LR, client_optimizer=with_decay, decay=0.3)
    part = toy.clients([12])
    run = simulate(
        part, algorithm=spec, cohorts=[[0]] * 3, num_rounds=3, batch_size=0, local_epochs=1,
        clients_per_round=1,
    )  # fmt: skip
    params = toy.initial_params()
    for _ in range(3):
        gradient = reference.loss_and_gradient(params, *part[0])[1]
        params = reference.combine(lambda p, g: p - LR * (g + 0.3 * p), params, gradient)
    toy.assert_close(jax.device_get(run.baselines["centralized"].variables.params), params, 1e-4)
    loss, _ = mean_loss_and_accuracy(params, *part[0])
    final = run.baselines["local_only"].summary["final"]
    assert final["eval/test/loss"] == pytest.approx(loss, rel=1e-4)


def test_momentum_of_baselines_goes_on_from_round_to_round():
    part = toy.clients([12])
    run = simulate(
        part, algorithm=algorithms.fedavg(LR, client_momentum=0.9), cohorts=[[0]] * 4,
        clients_per_round=1, batch_size=0, local_epochs=2, rounds_per_dispatch=2,
    )  # fmt: skip
    params = reference.local_sgd(toy.initial_params(), *part[0], LR, 12, 8, momentum=0.9)[0]
    toy.assert_close(jax.device_get(run.baselines["centralized"].variables.params), params, 1e-4)
    loss, _ = mean_loss_and_accuracy(params, *part[0])
    for baseline in run.baselines.values():
        assert baseline.summary["final"]["eval/test/loss"] == pytest.approx(loss, rel=1e-4)


@pytest.mark.parametrize("work", [{"local_epochs": 3}, {"local_epochs": None, "local_steps": 2}])
def test_baselines_of_fedsgd_take_its_gradients(work):
    spec = algorithms.fedsgd(LR)
    run = simulate(algorithm=spec, server_lr_schedule=lambda round: 1.0 * (round < 0), **work)
    steps = run.curves["train/local_steps"][1:].tolist()
    assert steps == [sum(-(-toy.SIZES[c] // BATCH) for c in cohort) for cohort in COHORTS]
    for baseline in run.baselines.values():
        assert baseline.curves["train/local_steps"][1:].tolist() == steps
        # the server's schedule, 0 throughout, is theirs too
        losses = baseline.curves["eval/test/loss"]
        assert np.nanmax(losses) == pytest.approx(np.nanmin(losses))
