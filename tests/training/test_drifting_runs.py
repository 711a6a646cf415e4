"""Runs on data that drift: rounds train on, and evaluations judge, what is current."""

import jax
import numpy as np
import pytest

import fljax
from fljax import algorithms, config, data, models, tasks
from fljax.engine.devices.compilation import compiled_seconds
from fljax.studies.groups import from_config, grouped
from fljax.studies.slots import Slots
from fljax.studies.study import Study, listed_trials
from fljax.training.contributions import values_of
from fljax.training.options import RoundOptions, split_options

pytestmark = pytest.mark.usefixtures("quick_compilation")
RNG = np.random.default_rng(7)
X, Y = RNG.normal(size=(160, 5)).astype(np.float32), np.arange(160) % 4
IDS = np.repeat(np.arange(4), 40)
TASK = tasks.classification(models.softmax_regression(5, 4), 4)
# of no random order, so that rounds of several runs can be compared
SETTING = {
    "clients_per_round": 4, "batch_size": 8, "shuffle": False, "eval_every": 1, "progress": False,
    "eval_personal": -1, "devices": 1, "lanes": 1,
}  # fmt: skip


def drifting(drift, **options):
    return data.from_arrays(
        X, Y, client_ids=IDS, own_test_fraction=0.25, concept_drift=drift, **options
    )


def run_of(dataset, num_rounds, **options):
    setting = SETTING | {"num_rounds": num_rounds} | options
    return fljax.simulate(dataset, TASK, algorithms.fedavg(0.3), **setting)


def parameters(variables):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(variables.params)])


CURVES = ("eval/test/accuracy", "eval/test/loss", "eval/personal/loss", "train/loss")


@pytest.fixture(scope="module")
def whole():
    return drifting("label_rotations(2), sudden(2)")


def test_a_sudden_change_is_a_run_that_goes_on_with_other_data(whole):
    compiled = []
    run = run_of(whole, 4, hooks=[lambda federation, record: compiled.append(compiled_seconds())])
    assert len(set(compiled)) == 1  # new rows compile nothing
    before = run_of(drifting(None), 2)
    after = run_of(whole.at(2), 2, initial_params=before.variables.params)
    near = {"rtol": 1e-5, "atol": 1e-7}
    np.testing.assert_allclose(parameters(run.variables), parameters(after.variables), **near)
    for name in CURVES:
        joined = np.concatenate([before.curves[name], after.curves[name][1:]])
        np.testing.assert_allclose(run.curves[name], joined, **near)
    # a client's own model is the global one here, on the client's current rows
    np.testing.assert_allclose(
        run.curves["eval/personal/loss"][1:], run.curves["eval/test/loss"][1:], rtol=1e-5
    )
    loss = run.curves["eval/test/loss"]
    assert loss[3] > loss[2]  # what was learned is wrong now


def test_layout_and_stop_change_nothing(whole, tmp_path):
    alone = run_of(whole, 4)
    streamed = run_of(whole, 4, placement="stream", lanes=2, devices=2)
    np.testing.assert_allclose(
        parameters(streamed.variables), parameters(alone.variables), rtol=1e-5, atol=1e-6
    )
    run_of(whole, 3, workdir=tmp_path)
    resumed = run_of(whole, 4, workdir=tmp_path, resume=True)
    np.testing.assert_array_equal(parameters(resumed.variables), parameters(alone.variables))
    later = drifting("label_rotations(2), sudden(3)")
    with pytest.raises(ValueError, match="partition's rows"):
        run_of(later, 5, workdir=tmp_path, resume=True)


def test_trials_that_drift_otherwise_share_a_program():
    keys = {
        "dataset": "digits", "partition": "iid", "num_clients": 4, "clients_per_round": 4,
        "num_rounds": 3, "own_test_fraction": 0.3, "batch_size": 100, "eval_every": 1,
        "client_lr": 0.1, "devices": 1, "lanes": 1,
    }  # fmt: skip
    base = config.with_keys(config.default_config(), keys)
    study = Study({"concept_drift": ("window(0.3, over=4)", "window(0.3, over=2)", None)})
    trials = listed_trials(study)
    (group,) = grouped(trials, from_config(base))
    options, run_options = split_options(group.experiment.options)
    slots = Slots(group, trials, options, run_options)
    for _ in range(3):
        slots.train(1)
        slots.evaluate([0, 1, 2])
    for place, dataset in enumerate(group.datasets):
        _, task, algorithm, given, _ = group.experiment
        alone = fljax.simulate(dataset, task, algorithm, **given | {"progress": False})
        found = [record["eval/test/loss"] for record in slots.slots[place].records]
        np.testing.assert_allclose(found, alone.curves["eval/test/loss"][1:], rtol=1e-5)
        np.testing.assert_allclose(
            parameters(slots.federation.variables_of(place)), parameters(alone.variables),
            rtol=1e-4, atol=1e-6,
        )  # fmt: skip


def test_what_pools_rows_is_refused_before_the_first_round(whole):
    with pytest.raises(ValueError, match="pools the rows of all clients once"):
        run_of(whole, 1, baselines=("centralized",))
    options = RoundOptions(num_rounds=1, clients_per_round=4, batch_size=8)
    with pytest.raises(ValueError, match="coalitions are of rows that stay"):
        values_of(np.eye(4, dtype=bool), whole, TASK, algorithms.fedavg(0.1), options, rows="test")
