"""Runs that end before their last round: by patience, by a hook; and what they leave behind."""

import json
import math
import os
import signal

import jax
import numpy as np
import pytest
import toy

import fljax
from fljax import algorithms
from fljax.core.metrics import ACCURACY, LOSS
from fljax.training.stopping import Validation

pytestmark = pytest.mark.usefixtures("quick_compilation", "weights_as_written")

DATA = toy.dataset(toy.clients(dtype=np.float32)).with_validation(0.2)


def simulate(data=DATA, task=None, **options):
    defaults = {
        "num_rounds": 14, "clients_per_round": 4, "batch_size": 4, "eval_every": 1, "devices": 1,
        "progress": False, "eval_clients": -1,
    }  # fmt: skip
    spec = algorithms.fedavg(1.5)
    task = task or toy.softmax_task(np.float32)
    return fljax.simulate(data, task, spec, **(defaults | options))


def last_round(values, patience, min_delta=0.0):
    """Which evaluation ends a run, told independently: the first after `patience` idle ones."""
    reference, idle = -math.inf, 0
    for number, value in enumerate(values):
        idle = idle + 1
        if math.isfinite(value) and value - reference > min_delta:
            reference, idle = value, 0
        if idle >= patience:
            return number
    return None


def lines(workdir):
    """Records without what depends on the clock."""
    clock = ("time/", "throughput/")
    return [
        {k: v for k, v in json.loads(line).items() if not k.startswith(clock)}
        for line in (workdir / "metrics.jsonl").read_text().splitlines()
    ]


@pytest.mark.parametrize("value", [math.nan, -math.inf])
def test_a_metric_that_is_never_a_number_is_told_once(value, tmp_path):
    metric = fljax.tasks.Metric("gain", value=lambda sums: 0 * sums["loss"].weight + value)
    task = toy.softmax_task(np.float32)._replace(metrics=(metric, LOSS))
    with pytest.warns(UserWarning, match="No round is the best: eval/val/gain was no ") as seen:
        run = simulate(task=task, num_rounds=2, workdir=tmp_path, eval_clients=0)
    assert sum("No round is the best" in str(warning.message) for warning in seen) == 1
    assert run.summary["best"] is None and "of 3 evaluations" in run.summary["no_best"]


@pytest.fixture(scope="module")
def whole():
    return simulate()


@pytest.mark.parametrize("seed", range(40))
def test_patience_ends_where_a_loop_over_evaluations_does(seed):
    generator = np.random.default_rng(seed)
    values = np.round(generator.random(30).cumsum() / 15 - generator.random(30), 2)
    values[generator.integers(0, 30, 3)] = np.nan
    patience, min_delta = int(generator.integers(1, 6)), float(generator.choice([0, 0.1]))
    for metric, sign in ((ACCURACY, 1), (LOSS, -1)):
        validation = Validation(metric, patience, min_delta)
        ended = None
        for number, value in enumerate(sign * values):
            validation.see(
                {"round": number, f"eval/val/{metric.name}": value, "eval/test/loss": 0.0}
            )
            validation.see({"round": number, "train/loss": 0.0})
            if validation.exhausted and ended is None:
                ended = number
        assert ended == last_round(values, patience, min_delta)
        best = np.nanargmax(values)
        assert validation.best == (best, sign * values[best])


@pytest.mark.parametrize("min_delta", [0.0, 0.02])
def test_patience_ends_a_run_on_validation_data(min_delta, whole, tmp_path):
    accuracy = whole.curves["eval/val/accuracy"]
    ends = last_round(accuracy, 3, min_delta)
    assert ends is not None and 3 < ends < 14
    options = {"workdir": tmp_path, "patience": 3, "min_delta": min_delta}
    run = simulate(**options)
    assert run.rounds.tolist() == list(range(ends + 1)) and not run.interrupted
    assert run.stopped.startswith("eval/val/accuracy has not improved")
    assert fljax.load_run(tmp_path).stopped == run.summary["stopped"] == run.stopped
    assert (tmp_path / "checkpoints" / str(ends)).is_dir()
    assert (tmp_path / "model" / "final.npz").exists()
    resumed = simulate(**options, resume=True)
    assert resumed.rounds.tolist() == run.rounds.tolist() and resumed.stopped == run.stopped
    jax.tree.map(np.testing.assert_array_equal, resumed.variables, run.variables)


def test_a_stopped_and_resumed_run_counts_on(whole, tmp_path):
    ends = last_round(whole.curves["eval/val/accuracy"], 3)

    def press(federation, record):
        if record["round"] == ends - 1:  # while it waits
            os.kill(os.getpid(), signal.SIGINT)

    once = simulate(workdir=tmp_path / "once", patience=3)
    half = simulate(workdir=tmp_path / "parts", patience=3, hooks=(press,))
    assert half.interrupted and half.stopped is None
    resumed = simulate(workdir=tmp_path / "parts", patience=3, resume=True)
    assert resumed.stopped == once.stopped
    assert lines(tmp_path / "parts") == lines(tmp_path / "once")
    # with more patience it goes on, as if it had always had it
    longer = simulate(workdir=tmp_path / "parts", patience=0, resume=True)
    jax.tree.map(np.testing.assert_array_equal, longer.variables, whole.variables)
    assert longer.stopped is None and longer.summary["rounds"] == 14


def test_patience_that_is_not_exhausted_changes_nothing(whole):
    run = simulate(patience=100)
    assert run.stopped is None and run.summary["stopped"] is None
    jax.tree.map(np.testing.assert_array_equal, run.variables, whole.variables)


def test_a_hook_ends_a_run_cleanly(whole, tmp_path):
    def enough(federation, record):
        if record["round"] == 5:
            raise fljax.StopTraining("enough is enough")

    seen = []
    others = (lambda federation, record: seen.append(record["round"]) or {"my/value": 1},)
    run = simulate(workdir=tmp_path, hooks=(enough, *others), eval_every=3)
    assert run.rounds.tolist() == list(range(6)) and seen == [1, 2, 3, 4, 5]
    assert run.stopped == run.summary["stopped"] == "enough is enough" and not run.interrupted
    assert lines(tmp_path)[-1]["stopped"] == "enough is enough"
    assert lines(tmp_path)[-1]["my/value"] == 1
    jax.tree.map(np.testing.assert_array_equal, run.variables, simulate(num_rounds=5).variables)
    jax.tree.map(
        np.testing.assert_array_equal, fljax.load_model(tmp_path), jax.device_get(run.variables)
    )
    resumed = simulate(workdir=tmp_path, eval_every=3, resume=True)
    assert resumed.rounds.tolist() == list(range(6)) and resumed.stopped == "enough is enough"
    jax.tree.map(np.testing.assert_array_equal, resumed.variables, run.variables)


def test_the_last_round_is_no_early_end():
    def end(federation, record):
        if record["round"] == 2:
            raise fljax.StopTraining

    run = simulate(num_rounds=2, hooks=(end,))
    assert run.stopped is None and run.summary["rounds"] == 2


WRONG = {
    "patience = -1 must be at least 0": {"patience": -1},
    "patience = 1.5": {"patience": 1.5},
    "min_delta = nan": {"patience": 1, "min_delta": math.nan},
    "min_delta = -0.1": {"patience": 1, "min_delta": -0.1},
    "min_delta = 0.1 has no effect": {"min_delta": 0.1},
    "patience has no effect with eval_every = 0": {"patience": 2, "eval_every": 0},
    "has no validation data": {"patience": 2, "data": toy.dataset(toy.clients(dtype=np.float32))},
}


@pytest.mark.parametrize("message", WRONG)
def test_patience_that_could_not_work_is_refused(message):
    with pytest.raises(ValueError, match=message):
        simulate(**WRONG[message])


@pytest.mark.parametrize(
    "values, message",
    [
        ({"patience": 3, "eval_every": 0}, "patience has no effect"),
        ({"patience": 3, "val_fraction": 0.0}, "patience needs validation data"),
        ({"min_delta": 0.1}, "min_delta = 0.1 has no effect"),
        ({"early_stopping": 5}, "it is called 'patience'"),
    ],
)
def test_a_configuration_is_checked_alike(values, message):
    with pytest.raises(ValueError, match=message):
        fljax.config.resolve(values)


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ({"round": 9}, "'round', which is the simulator's own"),
        ({"train/loss": 0.0}, "'train/loss', which is the simulator's own"),
        ({"stopped": "x"}, "'stopped', which is the simulator's own"),
        ({"a": {"b": 1}}, "'b': 1} as 'a'; give one number or text"),
        ({"a": [1.0, 2.0]}, "as 'a'; give one number"),
        ({"a": [1, [2]]}, "as 'a'; give one number"),
        ({3: 1}, "the key 3, which is no text"),
        (True, "returns True; it may return None, or a dict"),
        ("text", "returns 'text'; it may"),
        (fljax.StopTraining("why"), "raise it instead"),
    ],
)
def test_what_a_hook_returns_is_checked_in_its_round(found, message):
    with pytest.raises(ValueError, match=message):
        simulate(hooks=(lambda federation, record: found,), num_rounds=2)


def test_a_hook_adds_numbers_and_texts():
    found = {"my/number": np.float32(2), "my/array": np.ones(1), "my/text": "x", "my/nan": math.nan}
    run = simulate(hooks=(lambda federation, record: found,), num_rounds=2)
    assert run.curves["my/number"][1:].tolist() == [2, 2]
    assert run.curves["my/array"][1:].tolist() == [1, 1]
