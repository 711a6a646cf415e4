"""Runners in turn, failures that lose nothing, and ratios as a person computes them."""

import dataclasses
import json
import sys

import numpy as np
import pytest

from fljax.benchmarks import comparison, comparison_table, neutral, runner, workload_file
from fljax.benchmarks.comparison import Runner
from fljax.benchmarks.workloads import WORKLOADS, equal, find, generate

pytestmark = pytest.mark.usefixtures("quick_compilation", "weights_as_written")

# takes its seconds from a file, one number a call, and notes who was called
PEER = """
import json, pathlib, sys
name, arguments = sys.argv[1], sys.argv[2:]
assert arguments[::2] == ["--data", "--workload", "--rounds"] and arguments[3:6:2] == ["w", "2"]
calls = pathlib.Path("calls")
before = calls.read_text().split() if calls.exists() else []
calls.write_text(" ".join([*before, name]))
seconds = json.loads(pathlib.Path(name).read_text())[before.count(name)]
print("noise before the line")
if seconds is None:
    sys.exit("out of luck")
print(json.dumps(dict(median_s_per_round=seconds, min=seconds, max=seconds, times=[seconds] * 2,
    first_round_s=1, examples_per_s=3 / seconds, peak_rss_mb=100 * len(name), final_train_loss=2)))
"""


@pytest.fixture
def peers(tmp_path):
    """Returns a function {name: seconds of its calls} -> runners."""
    (tmp_path / "peer.py").write_text(PEER)

    def make(**seconds):
        for name, values in seconds.items():
            (tmp_path / name).write_text(json.dumps(values))
        return {name: Runner([sys.executable, "peer.py", name], tmp_path) for name in seconds}

    return make


def compare(runners, tmp_path, repetitions=3):
    return comparison.compare(
        runners, {"w": tmp_path / "w.npz"}, tmp_path / "out.jsonl",
        rounds=2, repetitions=repetitions, report=lambda text: None,
    )  # fmt: skip


def test_runners_take_turns_and_ratios_are_those_of_each_repetition(peers, tmp_path):
    runners = peers(fljax=[1.0, 2.0, 4.0], fedjax=[3.0, 5.0, 30.0], slow=[9.0, 4.0, 20.0])
    lines = compare(runners, tmp_path)
    order = (tmp_path / "calls").read_text().split()
    assert order[:3] == ["fljax", "fedjax", "slow"] and order[3:6] == ["fedjax", "slow", "fljax"]
    text = comparison_table.table(lines)
    # fastest others: fedjax 3 / 1, slow 4 / 2, slow 20 / 4
    assert "(fedjax, slow) / fljax: median 3.00 (2.00 to 5.00, 3 repetitions)" in text
    assert "Peak memory of fljax / fedjax: 0.83" in text
    rows = {line.split(" | ")[0].strip("| "): line for line in text.splitlines() if "| " in line}
    assert rows["fedjax"].split(" | ")[1:4] == ["5", "3 5 30", "3.00"]
    assert rows["slow"].split(" | ")[1:4] == ["9", "9 4 20", "5.00"]


def line(name, loss, seconds=1.0):
    figures = {"median_s_per_round": seconds, "first_round_s": 1.0, "examples_per_s": 1.0}
    return {
        "runner": name, "workload": "w", "repetition": 0, "peak_rss_mb": 1.0,
        "final_train_loss": loss, **figures,
    }  # fmt: skip


def test_other_work_is_noticed():
    lines = [line("fljax", 2.0), line("near", 2.001), line("far", 2.003)]
    said = comparison_table.table(lines).splitlines()[-1]
    assert said.startswith("Final losses further than 0.001 (relative) from fljax's: far.")
    assert "Final losses" not in comparison_table.table(lines[:2])


@pytest.mark.parametrize("loss", [float("nan"), float("inf"), None])
def test_a_run_without_a_finite_loss_is_a_failure_and_no_rival(loss):
    said = comparison_table.table([line("fljax", 2.0), line("wild", loss, 0.5), line("good", 2.0)])
    assert f"wild, repetition 0, failed: final_train_loss is {loss}" in said
    assert "(good) / fljax: median 1.00" in said and "| wild |" not in said


@pytest.mark.parametrize("printed", ['{"median_s_per_round": 1, "final_train_loss": NaN}', "{oh"])
def test_a_line_that_is_no_result_is_an_error(printed, tmp_path):
    runner = Runner([sys.executable, "-c", f"print({printed!r})"], tmp_path)
    found = comparison.run(runner, tmp_path / "w.npz", "w", 2, 60)
    assert "final_train_loss is nan" in found["error"] or "no JSON" in found["error"]


def test_what_failed_is_said_and_run_again(peers, tmp_path):
    runners = peers(fljax=[1.0, 1.0], other=[None, 2.0, 3.0])
    text = comparison_table.table(compare(runners, tmp_path, repetitions=2))
    assert "other, repetition 0, failed: ended with exit status 1" in text
    assert "(1.00 to" not in text and "median 2.00 (2.00 to 2.00, 1 repetitions)" in text
    # only the failure is run again, and the newer line counts
    text = comparison_table.table(compare(runners, tmp_path, repetitions=2))
    assert (tmp_path / "calls").read_text().split().count("fljax") == 2
    assert "failed" not in text and "median 2.50 (2.00 to 3.00, 2 repetitions)" in text


def test_runners_get_the_time_that_is_left(tmp_path):
    (tmp_path / "hang.py").write_text("import time; time.sleep(600)")
    hang = Runner([sys.executable, "hang.py"], tmp_path)
    lines = comparison.compare(
        {"one": hang, "other": hang}, {"w": tmp_path / "w.npz"}, tmp_path / "out.jsonl",
        rounds=1, repetitions=1, seconds=1, report=lambda text: None,
    )  # fmt: skip
    assert [line["runner"] for line in lines] == ["one"]
    assert lines[0]["error"].startswith("took more than 1 s")


def test_a_line_that_a_kill_cut_off_is_run_again(peers, tmp_path):
    runners, out = peers(fljax=[1.0, 2.0]), tmp_path / "deep" / "er" / "out.jsonl"
    options = {"rounds": 2, "repetitions": 1, "report": lambda text: None}
    comparison.compare(runners, {"w": tmp_path / "w.npz"}, out, **options)
    out.write_text(out.read_text()[:40])
    with pytest.warns(UserWarning, match="line 1, is no JSON"):
        lines = comparison.compare(runners, {"w": tmp_path / "w.npz"}, out, **options)
    assert [line["median_s_per_round"] for line in lines] == [2.0]


def test_a_runner_that_hangs_or_does_not_exist_is_a_failure(tmp_path):
    (tmp_path / "hang.py").write_text("import time; time.sleep(600)")
    hang = Runner([sys.executable, "hang.py"], tmp_path)
    assert "more than 1 s" in comparison.run(hang, tmp_path / "w.npz", "w", 2, 1)["error"]
    absent = Runner(["./no-such-program"], tmp_path)
    assert "no-such-program" in comparison.run(absent, tmp_path / "w.npz", "w", 2, 1)["error"]


def test_a_harness_lists_its_runners(tmp_path, monkeypatch):
    monkeypatch.setenv("TOOLS", "/opt/tools")
    (tmp_path / "runners.json").write_text('{"one": "$TOOLS/python run.py --style \'a b\'"}')
    found = comparison.harness_runners(tmp_path)
    assert found == {"one": Runner(["/opt/tools/python", "run.py", "--style", "a b"], tmp_path)}
    with pytest.raises(ValueError, match="no runners.json"):
        comparison.harness_runners(tmp_path / "elsewhere")


@pytest.mark.parametrize(
    ("name", "shape", "options"),
    [
        ("softmax_100", (7,), {}),
        ("mlp_100", (7,), {"hidden": (5, 3)}),
        ("emnist_cnn_10", (6, 6, 1), {}),
    ],
)
def test_own_workload_files_run(name, shape, options, tmp_path):
    tiny = dataclasses.replace(
        WORKLOADS[name], population=6, cohort=3, shape=shape, sizes=equal(12), classes=4,
        model_options=options,
    )  # fmt: skip
    made = neutral.make_file("tiny", tiny)
    assert all(len(set(cohort)) == 3 for cohort in made.cohorts.tolist())
    # the evaluation rows are others, of the same classes and the same kind
    assert not (made.eval_x[:, None] == made.x[None]).all(tuple(range(2, made.x.ndim + 1))).any()
    back = neutral.to_neutral(made.meta["model"], neutral.to_fljax(made.meta["model"], made.params))
    assert back.keys() == made.params.keys()
    assert all(np.array_equal(back[key], made.params[key]) for key in back)
    workload_file.write(tmp_path / "tiny.npz", made)
    found = workload_file.read(tmp_path / "tiny.npz")
    assert np.array_equal(found.x, made.x) and found.meta["lr"] == tiny.client_lr
    assert np.isfinite(runner.run(tmp_path / "tiny.npz", "tiny", 1)["final_train_loss"])


def test_workloads_that_others_cannot_run_are_refused():
    with pytest.raises(ValueError, match="'lenet_10' cannot be given"):
        neutral.make_file("lenet_10", find("lenet_10"))


def test_a_test_set_has_the_classes_of_the_training_set():
    tiny = dataclasses.replace(WORKLOADS["softmax_60"], population=20, sizes=equal(50))
    data = generate(tiny, test_rows=400)
    train, test = (split.examples.arrays for split in (data.train, data.test))
    means = np.stack([train["x"][train["y"] == label].mean(0) for label in range(10)])
    distances = ((test["x"][:, None] - means) ** 2).sum(-1)
    assert (distances.argmin(1) == test["y"]).mean() > 0.5
