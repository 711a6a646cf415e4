"""A deployed model under watch: it serves, alarms call for training, what that led to is told."""

import jax
import numpy as np
import pytest

import fljax
from fljax import algorithms, data, models, tasks
from fljax.core.sampler import Sampler, uniform
from fljax.engine.devices.compilation import compiled_seconds
from fljax.selection import growth
from fljax.systems.detectors import Detector, every, loss_rise
from fljax.training import federation as federations
from fljax.training.monitoring import monitor, report
from fljax.training.options import RoundOptions
from fljax.training.watching import errors_of, make_watch

pytestmark = pytest.mark.usefixtures("quick_compilation")
RNG = np.random.default_rng(7)
Y = np.arange(240) % 3
X = (RNG.normal(size=(240, 5)) + 2 * np.eye(3, 5)[Y]).astype(np.float32)
IDS = np.repeat(np.arange(6), 40)
TASK = tasks.classification(models.softmax_regression(5, 3), 3)
SETTING = {
    "num_rounds": 20, "clients_per_round": 4, "batch_size": 10, "devices": 1, "lanes": 2,
}  # fmt: skip
TIMES = {"deploy_after": 4, "retrain_rounds": 3, "watch_rows": 3}


def drifting(drift="label_rotations(2), sudden(9)", **options):
    options = {"own_test_fraction": 0.3, "concept_drift": drift} | options
    return data.from_arrays(X, Y, client_ids=IDS, **options)


def monitored(dataset=None, detector=None, **options):
    dataset = drifting() if dataset is None else dataset
    options = SETTING | TIMES | options
    return monitor(dataset, TASK, algorithms.fedavg(0.3), detector=detector, **options)


def parameters(variables):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(variables.params)])


def curve(found, key):
    return np.array([record.get(key, np.nan) for record in found.records])


@pytest.fixture(scope="module")
def retrained():
    return monitored(detector=loss_rise(0.3))


def test_a_change_is_noticed_and_training_makes_it_good(retrained):
    (incident,) = retrained.account.incidents
    assert (incident.change, incident.alarm, incident.delay) == (9, 9, 0)
    assert incident.drifted > 0.8 > 0.3 > incident.after
    assert incident.recovered > 0.9
    assert retrained.account.false_alarms == ()
    assert np.flatnonzero(curve(retrained, "monitor/alarm") == 1).tolist() == [9]
    assert np.flatnonzero(curve(retrained, "monitor/retraining") == 1).tolist() == [9, 10, 11]
    assert np.flatnonzero(curve(retrained, "monitor/changing") == 1).tolist() == [9]
    trained = ~np.isnan(curve(retrained, "train/loss"))
    assert np.flatnonzero(trained).tolist() == [0, 1, 2, 3, 9, 10, 11]
    assert [record["round"] for record in retrained.records] == list(range(1, 21))
    summary = retrained.summary
    assert (summary["trained_rounds"], summary["alarms"], summary["missed"]) == (7, 1, 0)
    assert summary["uplink_bytes"] == 7 * 4 * 4 * 18  # rounds, clients, bytes, parameters
    assert "1 alarms, 0 of them false; 0 of 1 changes missed" in report(retrained)


def test_training_in_between_is_a_run_that_rests(retrained):
    """`simulate` whose sampler draws nobody while the model serves ends with the same model."""
    inner = uniform(6, 4, 0)

    def select(state, round):
        rests = not (round < 4 or 9 <= round < 12)
        clients, state = inner.select(state, round)
        return clients[: 0 if rests else 4], state

    options = SETTING | {"sampler": Sampler(inner.init, select, 4), "progress": False}
    run = fljax.simulate(drifting(), TASK, algorithms.fedavg(0.3), **options)
    np.testing.assert_allclose(
        parameters(retrained.variables), parameters(run.variables), rtol=1e-6, atol=1e-7
    )
    rounds = [0, 1, 2, 3, 9, 10, 11]
    np.testing.assert_allclose(
        curve(retrained, "train/loss")[rounds], run.curves["train/loss"][[r + 1 for r in rounds]],
        rtol=1e-6,
    )  # fmt: skip


def test_nothing_happens_without_an_alarm():
    found = monitored()
    options = SETTING | {"num_rounds": 4, "progress": False}
    run = fljax.simulate(drifting(), TASK, algorithms.fedavg(0.3), **options)
    np.testing.assert_allclose(parameters(found.variables), parameters(run.variables), rtol=1e-6)
    assert found.summary["trained_rounds"] == 4 and found.summary["missed"] == 1
    assert curve(found, "monitor/error")[9:].mean() > 0.8


def test_a_repeated_run_raises_the_same_alarms(retrained):
    again = monitored(detector="loss_rise(0.3)")
    names = ("monitor/error", "monitor/alarm", "train/loss")
    for name in names:
        np.testing.assert_array_equal(curve(again, name), curve(retrained, name))
    np.testing.assert_array_equal(parameters(again.variables), parameters(retrained.variables))


def test_errors_are_those_of_the_model_on_rows_that_clients_hold():
    dataset = drifting("label_rotations(2), gradual(2, over=6)")
    options = RoundOptions(**SETTING)
    federation = federations.build(dataset, TASK, algorithms.fedavg(0.3), options)
    watch = make_watch(federation, clients=4, rows=50)
    assert len(watch.clients) == 4 and (np.diff(watch.clients) > 0).all()
    arrays, partition = dataset.test.examples.arrays, dataset.test.partition
    weight, bias = sorted(jax.tree.leaves(federation.variables.params), key=np.ndim)[::-1]
    for round in (0, 5, 12):
        met = watch.rows_met(round)
        for client, rows in zip(watch.clients, met, strict=True):
            assert set(rows.tolist()) <= set(partition.at(round).rows(client).tolist())
            assert len(set(rows.tolist())) > 5  # of 12, 50 times with replacement
        logits = np.asarray(arrays["x"], np.float64)[met] @ np.asarray(weight) + np.asarray(bias)
        expected = logits.argmax(-1) != np.asarray(arrays["y"])[met]
        found = errors_of(watch.dispatch(federation.variables, federation.inputs.frozen, round))
        np.testing.assert_array_equal(found, expected.reshape(-1))
    assert not np.array_equal(watch.rows_met(0), watch.rows_met(1))


def test_serving_and_training_again_compile_nothing():
    compiled = []

    def observe(passed, errors):
        compiled.append(compiled_seconds())
        return passed + 1, 0 if passed == 2 else -1

    monitored(detector=Detector(lambda: 0, observe))
    assert len(compiled) == 10  # three models were watched for three rounds, one for the last
    assert len(set(compiled[2:])) == 1


def test_alarms_begin_training_that_ends_with_the_run():
    found = monitored(detector=every(7), num_rounds=12)
    # it serves from round 4; the alarm of round 10 has two rounds left
    assert found.summary["trained_rounds"] == 6
    assert found.summary["false_alarms"] == 0 and found.summary["alarms"] == 1
    (incident,) = found.account.incidents
    assert (incident.change, incident.alarm) == (9, 10) and np.isnan(incident.after)
    assert monitored(deploy_after=20).records[-1]["round"] == 20


def test_only_members_are_heard():
    membership = growth.given([0, 0, 0, 5, 8, 8], [growth.NEVER, 6] + [growth.NEVER] * 4)
    heard = []

    def observe(state, errors):
        heard.append(len(errors))
        return state, -1

    found = monitored(
        detector=Detector(lambda: (), observe), membership=membership, num_rounds=10,
        sampler=growth.among(membership, 4, seed=0),
    )  # fmt: skip
    assert heard == [9, 12, 9, 9, 15, 15]
    assert curve(found, "train/clients")[:4].tolist() == [3] * 4


def test_records_can_be_read_back(tmp_path):
    found = monitored(workdir=tmp_path, num_rounds=6, config={"why": "a test"})
    run = fljax.load_run(tmp_path)
    np.testing.assert_array_equal(run.curves["monitor/error"], curve(found, "monitor/error"))
    assert run.summary["trained_rounds"] == 4 and run.config["why"] == "a test"


def test_own_test_rows_or_validation_rows_are_watched():
    dataset = drifting(own_test_fraction=0.0, val_fraction=0.2)
    found = monitored(dataset, detector=loss_rise(0.3), num_rounds=11)
    assert found.account.incidents[0].delay == 0
    with pytest.raises(ValueError, match="Set own_test_fraction"):
        monitored(drifting(own_test_fraction=0.0))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"deploy_after": 21}, "deploy_after = 21, but there are 20 rounds"),
        ({"deploy_after": 0}, "deploy_after = 0 must be at least 1"),
        ({"retrain_rounds": 0}, "retrain_rounds = 0 must be at least 1"),
        ({"watch_clients": 0}, "watches nobody"),
        ({"watch_rows": 0}, "watch_rows = 0 must be at least 1"),
        ({"detector": 3}, "detector = 3"),
        ({"detector": "adwon"}, "Did you mean 'adwin'"),
        ({"privacy": "gaussian(0.3)", "clip_norm": 1.0}, "covered by no noise"),
        ({"membership": growth.given([0, 1])}, "membership is of 2 clients"),
    ],
)
def test_what_does_not_fit_is_refused(options, said):
    with pytest.raises(ValueError, match=said):
        monitored(**options)


def test_what_has_no_global_model_is_not_deployed():
    with pytest.raises(ValueError, match="trains no global model"):
        monitor(drifting(), TASK, algorithms.local_only(0.1), detector=None, **SETTING, **TIMES)


def test_adwin_recovers_what_drift_costs():
    pytest.importorskip("river")
    found = monitored(detector="adwin", num_rounds=24, watch_rows=5)
    assert found.summary["recovered"] > 0.9
    assert found.summary["missed"] == 0 == found.summary["false_alarms"]
