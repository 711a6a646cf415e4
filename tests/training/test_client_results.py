"""Results of single clients and of their groups: who they are, evaluation after evaluation."""

import json
import os
import signal

import numpy as np
import pytest
import reference
import toy

import fljax
from fljax import algorithms, data
from fljax.recording.client_results import ClientResults

pytestmark = pytest.mark.usefixtures("quick_compilation", "weights_as_written")

ROUNDS = 7
NAMES = ["zoe", "ada", "élise", "bob", "a/b", "7", "dan", "eve", "fay"]
HOSPITALS = {name: f"hospital {number % 3}" for number, name in enumerate(NAMES)}
WARDS = {name: 2**40 + number % 2 for number, name in enumerate(NAMES)}


def rows(seed, sizes, names):
    """Returns (x, y, client of each row), shuffled."""
    parts = toy.clients(sizes, seed, np.float32)
    x, y = (np.concatenate(column) for column in zip(*parts, strict=True))
    owner = np.repeat(names, sizes)
    order = np.random.default_rng(seed).permutation(len(y))
    return x[order], y[order], owner[order]


TRAIN = rows(0, (13, 4, 5, 31, 2, 8, 20, 3, 17), NAMES)
TEST = rows(1, (6, 2, 9, 1, 5, 7, 3), ["ada", "bob", "dan", "zoe", "a/b", "new", "other"])


def dataset(**options):
    given = {
        "client_ids": TRAIN[2], "x_test": TEST[0], "y_test": TEST[1], "test_client_ids": TEST[2],
        "groups": {"hospital": HOSPITALS, "ward": WARDS},
    }  # fmt: skip
    return data.from_arrays(TRAIN[0], TRAIN[1], num_classes=toy.CLASSES, **(given | options))


def simulate(dataset, **options):
    defaults = {
        "num_rounds": ROUNDS, "clients_per_round": 3, "batch_size": 4, "eval_every": 2,
        "eval_clients": -1, "devices": 2, "progress": False,
    }  # fmt: skip
    spec, task = algorithms.fedavg(0.3), toy.softmax_task(np.float32)
    return fljax.simulate(dataset, task, spec, **(defaults | options))


def fares(params, chosen):
    """Returns (loss, accuracy) on the chosen test rows, in float64."""
    x, y = TEST[0][chosen].astype(np.float64), TEST[1][chosen]
    params = {name: np.asarray(leaf, np.float64) for name, leaf in params.items()}
    loss = reference.loss_and_gradient(params, x, y)[0] / len(y)
    return loss, ((x @ params["w"] + params["b"]).argmax(1) == y).mean()


def without_clock(workdir):
    clock = ("time/", "throughput/")
    return [
        {k: v for k, v in json.loads(line).items() if not k.startswith(clock)}
        for line in (workdir / "metrics.jsonl").read_text().splitlines()
    ]


@pytest.fixture(scope="module")
def run_and_params(tmp_path_factory):
    """A run, and the parameters after each of its evaluated rounds."""
    params = {0: toy.initial_params(np.float32)}

    def keep(federation, record):
        params[record["round"]] = toy.params_of(federation)

    workdir = tmp_path_factory.mktemp("runs") / "whole"
    run = simulate(dataset(), workdir=workdir, hooks=(keep,))
    return run, [params[round] for round in (0, 2, 4, 6, 7)]


def test_clients_are_told_by_id_split_and_group(run_and_params):
    found = run_and_params[0].client_metrics
    trained = sorted(set(TEST[2]) & set(NAMES))
    assert found["id"].tolist() == [*trained, "new", "other"]
    assert found["split"].tolist() == ["training"] * len(trained) + ["held_out"] * 2
    assert found["groups/hospital"].tolist() == [*map(HOSPITALS.get, trained), "", ""]
    assert found["groups/ward"].tolist() == [*map(str, map(WARDS.get, trained)), "", ""]
    ids = dataset().client_ids
    assert ids[found["client"][: len(trained)]].tolist() == trained
    assert found["examples"].tolist() == [(TEST[2] == name).sum() for name in found["id"]]


def test_they_fare_as_a_loop_over_clients_and_evaluations_says(run_and_params):
    run, params = run_and_params
    with np.load(run.directory / "client_metrics.npz") as arrays:
        found = dict(arrays)
    assert found["rounds"].tolist() == [0, 2, 4, 6, 7]
    expected = np.array(
        [[fares(param, TEST[2] == name) for name in found["id"]] for param in params]
    )
    for number, metric in enumerate(("loss", "accuracy")):
        history = found[f"history/{metric}"]
        np.testing.assert_allclose(history, expected[..., number], rtol=1e-4)
        np.testing.assert_array_equal(found[metric], history[-1])
    read = fljax.load_run(run.directory).client_metrics
    assert read.keys() == run.client_metrics.keys()
    for name, values in read.items():
        np.testing.assert_array_equal(values, run.client_metrics[name])


def test_groups_are_recorded_weighted_by_rows(run_and_params):
    run, params = run_and_params
    evaluated = np.isfinite(run.curves["eval/test/loss"])
    hospital_of = np.array([HOSPITALS.get(name, "") for name in TEST[2]])
    ward_of = np.array([WARDS.get(name, 0) for name in TEST[2]])
    for group, of_row in (("hospital", hospital_of), ("ward", ward_of)):
        for value in np.unique(of_row[np.isin(TEST[2], NAMES)]):
            expected = [fares(param, of_row == value) for param in params]
            for metric, wanted in zip(
                ("loss", "accuracy"), zip(*expected, strict=True), strict=True
            ):
                curve = run.curves[f"eval/groups/{group}/{value}/{metric}"][evaluated]
                np.testing.assert_allclose(curve, wanted, rtol=1e-4)
    keys = {key for key in run.curves if key.startswith("eval/groups/")}
    assert {key.split("/")[2] for key in keys} == {"hospital", "ward"}
    assert {key.rsplit("/", 1)[1] for key in keys} == {"loss", "accuracy", "top5"}


def test_groups_need_no_evaluation_of_clients_and_choose_validation_rows_else(run_and_params):
    found = simulate(dataset(), eval_clients=0)
    for key, curve in run_and_params[0].curves.items():
        if key.startswith("eval/groups/"):
            np.testing.assert_array_equal(found.curves[key], curve)
    assert found.client_metrics is None
    own = {"x_test": None, "y_test": None, "test_client_ids": None, "val_fraction": 0.3}
    validated = simulate(dataset(**own), eval_clients=0, num_rounds=1, eval_every=0)
    losses = [validated.curves[f"eval/groups/ward/{2**40 + n}/loss"][-1] for n in (0, 1)]
    split = dataset(**own).val
    weights = np.zeros(2)
    for client, size in enumerate(split.partition.sizes):
        weights[WARDS[dataset(**own).client_ids[client]] - 2**40] += size
    total = validated.curves["eval/val/loss"][-1]
    assert np.average(losses, weights=weights) == pytest.approx(total, rel=1e-9)


@pytest.mark.parametrize("stop", [3, 6])
def test_earlier_evaluations_survive_a_stop(stop, run_and_params, tmp_path):
    def press(federation, record):
        if record["round"] == stop:
            os.kill(os.getpid(), signal.SIGINT)

    simulate(dataset(), workdir=tmp_path, hooks=(press,))
    half = fljax.load_run(tmp_path).client_metrics
    assert half["rounds"].tolist() == [round for round in (0, 2, 4, 6) if round <= stop]
    resumed = simulate(dataset(), workdir=tmp_path, resume=True)
    for name, values in run_and_params[0].client_metrics.items():
        np.testing.assert_array_equal(resumed.client_metrics[name], values)
        np.testing.assert_array_equal(fljax.load_run(tmp_path).client_metrics[name], values)
    assert without_clock(tmp_path) == without_clock(run_and_params[0].directory)


def test_evaluations_after_the_checkpoint_are_forgotten(run_and_params, tmp_path):
    """A kill may come between the file and the checkpoint that counts on it."""
    path = run_and_params[0].directory / "client_metrics.npz"
    earlier = ClientResults(path, last_round=5).arrays()
    whole = run_and_params[0].client_metrics
    assert earlier["rounds"].tolist() == [0, 2, 4]
    np.testing.assert_array_equal(earlier["history/loss"], whole["history/loss"][:3])
    np.testing.assert_array_equal(earlier["loss"], whole["history/loss"][2])
    assert ClientResults(path, last_round=-1).arrays() == {}
    damaged = tmp_path / "client_metrics.npz"
    damaged.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ValueError, match=f"{damaged} is .*or delete it to go on"):
        ClientResults(damaged, last_round=5)


def test_other_clients_begin_anew_and_that_is_said(tmp_path):
    simulate(dataset(), workdir=tmp_path, num_rounds=2)
    with pytest.warns(UserWarning, match="round 4 is of other clients"):
        run = simulate(dataset(), workdir=tmp_path, num_rounds=4, eval_clients=2, resume=True)
    assert run.client_metrics["rounds"].tolist() == [4]
    assert run.client_metrics["history/loss"].shape == (1, 2)


def test_wide_ids_and_bytes_stay_what_they_are():
    ids = np.array([2**63 + number for number in range(9)], np.uint64)
    owner = np.repeat(ids, 5)
    x, y = TRAIN[0][:45], TRAIN[1][:45]
    own = {"client_ids": owner, "x_test": x, "y_test": y, "test_client_ids": owner}
    groups = {"kind": {client: b"odd" if client % 2 else b"even" for client in ids.tolist()}}
    run = simulate(
        data.from_arrays(x, y, num_classes=toy.CLASSES, groups=groups, **own),
        num_rounds=1, eval_every=0,
    )  # fmt: skip
    assert run.client_metrics["id"].dtype == np.uint64
    assert run.client_metrics["id"].tolist() == ids.tolist()
    assert "eval/groups/kind/odd/loss" in run.curves


def test_groups_of_many_values_stay_out_of_records():
    names = [f"client {number}" for number in range(101)]
    owner = np.array(names)
    x, y, _ = TRAIN
    with pytest.warns(UserWarning, match="groups 'self' have 101 values"):
        run = simulate(
            data.from_arrays(
                x[:101], y[:101], num_classes=toy.CLASSES, client_ids=owner,
                groups={"self": dict(zip(names, names, strict=True))},
            ),
            num_rounds=1, eval_every=0,
        )  # fmt: skip
    assert not any(key.startswith("eval/groups/") for key in run.curves)
    assert run.client_metrics["groups/self"].tolist() == sorted(names)
