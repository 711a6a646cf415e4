"""The criterion: what is left open follows the task, and what no record has is refused."""

import pytest
from small_sweeps import small_config

import fljax
from fljax.config.experiment import make_experiment
from fljax.core.metrics import LOSS, Metric
from fljax.studies import Criterion, Trial, given
from fljax.studies.criterion import filled
from fljax.studies.slots import Slots
from fljax.training.record_keys import evaluation_keys, training_keys

MSE, CLOSE = Metric("mse", "lower", label="Squared error"), Metric("close")
METRICS = (MSE, CLOSE, LOSS)

pytestmark = pytest.mark.usefixtures("quick_compilation", "weights_as_written")


@pytest.mark.parametrize(
    ("criterion", "metric", "report", "maximize"),
    [
        (Criterion(), "eval/val/mse", "eval/test/mse", False),
        (Criterion("eval/val/close"), "eval/val/close", "eval/test/close", True),
        (Criterion("eval/val/loss"), "eval/val/loss", "eval/test/loss", False),
        (Criterion("train/loss"), "train/loss", "eval/test/loss", False),
        (Criterion(report="eval/test/close"), "eval/val/mse", "eval/test/close", False),
        (Criterion("comm/uplink_bytes", None, False), "comm/uplink_bytes", "eval/test/mse", False),
        (Criterion("eval/clients/worst"), "eval/clients/worst", "eval/test/mse", False),
        (Criterion("eval/clients/std"), "eval/clients/std", "eval/test/mse", False),
        (
            Criterion("eval/groups/site/a/close"),
            "eval/groups/site/a/close",
            "eval/test/close",
            True,
        ),
    ],
)
def test_what_is_left_open_follows_the_task(criterion, metric, report, maximize):
    found = filled(criterion, METRICS)
    assert found[:3] == (metric, report, maximize)
    assert filled(found, METRICS) == found


def test_reports_are_of_test_rows_where_there_are_such():
    val, test, held_out = (f"eval/{split}/mse" for split in ("val", "test", "held_out"))
    assert filled(Criterion(), METRICS, {val, test, held_out}).report == test
    assert filled(Criterion(), METRICS, {val, held_out}).report == held_out
    assert filled(Criterion(), METRICS, {val}).report == val


@pytest.mark.parametrize(
    ("criterion", "message"),
    [
        (Criterion("eval/val/mse", maximize=True), "of 'mse' lower values are better. Leave max"),
        (Criterion("eval/val/close", maximize=False), "of 'close' higher values are better"),
        (Criterion("comm/uplink_bytes"), "high or low values of comm/uplink_bytes are good"),
        (Criterion(at="first"), "'best' or 'last'"),
    ],
)
def test_directions_are_refused_where_they_contradict_or_are_not_known(criterion, message):
    with pytest.raises(ValueError, match=message):
        filled(criterion, METRICS)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"criterion": Criterion("eval/val/los")}, "did you mean 'eval/val/loss'"),
        ({"criterion": Criterion(report="eval/test/accurcy")}, "did you mean 'eval/test/accuracy'"),
        ({"criterion": Criterion("train/lss", maximize=False)}, "did you mean 'train/loss'"),
        ({"criterion": Criterion("accuracy", maximize=True)}, "'eval/.*/accuracy'"),
        ({"criterion": Criterion("eval/val/loss", maximize=True)}, "lower values are better"),
        ({"criterion": Criterion("eval/test/loss")}, "measured on test data"),
        ({"columns": ("gap/eval/test/los",)}, "did you mean 'eval/test/loss'"),
        ({"columns": ("train/losss",)}, "did you mean 'train/loss'"),
    ],
)
def test_a_misspelt_key_is_refused_before_anything_is_built(
    tmp_path, monkeypatch, settings, message
):
    monkeypatch.setattr(Slots, "__init__", None)
    axes = {"client_lr": (0.1, 0.2)}
    with pytest.raises(ValueError, match=message) as refused:
        fljax.sweep(small_config(), tmp_path / "no", axes=axes, progress=False, **settings)
    assert "\n" not in str(refused.value)


def test_a_misspelt_key_of_proposed_trials_is_refused_before_they_are_built(tmp_path, monkeypatch):
    monkeypatch.setattr(Slots, "__init__", None)
    for criterion in (Criterion("eval/val/los", maximize=False), Criterion(report="eval/test/los")):
        with pytest.raises(ValueError, match="did you mean 'eval/(val|test)/loss'"):
            search = given([Trial(0, {"client_lr": 0.1})])
            settings = {"search": search, "criterion": criterion, "progress": False}
            fljax.sweep(small_config(), tmp_path / str(criterion.report), **settings)


@pytest.mark.parametrize("algorithm", ["fedavg", "scaffold"])
def test_keys_are_those_that_records_have(tmp_path, algorithm):
    config = small_config(num_rounds=1, eval_clients=-1, uplink_mbps=1.0, algorithm=algorithm)
    axes = {"client_lr": (0.1,)}
    found = fljax.sweep(config, tmp_path, axes=axes, progress=False)
    rows = {key for row in found.results.rows for key in row if "/" in key}
    made = make_experiment(config)
    known = evaluation_keys(made.dataset, made.task.metrics, -1)
    known += training_keys(made.dataset, made.task, made.algorithm, transfers=True)
    assert rows == set(known)
