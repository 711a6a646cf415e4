"""The summary: chosen by validation, reported on test."""

import json
import math

import jax
import pytest

from fljax.core.metrics import LOSS, Metric
from fljax.recording import best, final, peak_memory_bytes, summarize, to_target, versions


def records():
    rows = []
    for r in range(1, 7):
        row = {
            "round": r,
            "train/loss": 1.0 / r,
            "comm/uplink_bytes": 2**60 * r + 1,
            "comm/downlink_bytes": r,
            "comm/transfer_seconds": 0.5 * r,
            "time/simulated_seconds": 10.0 * r,
            "time/round_seconds": 9.0 if r == 1 else 2.0,
            "time/elapsed_seconds": 9.0 + 2 * (r - 1),
            "throughput/clients_per_second": 10.0 * r,
            "throughput/examples_per_second": 100.0 * r,
            "utilization": 0.5 if r % 2 else 1.0,
        }
        if r % 2 == 0:
            row["eval/test/accuracy"] = {2: 0.9, 4: 0.7, 6: 0.8}[r]
            row["eval/val/accuracy"] = {2: 0.1, 4: 0.6, 6: 0.6}[r]
        rows.append(row)
    return rows


def without(rows, prefix):
    return [{k: v for k, v in row.items() if not k.startswith(prefix)} for row in rows]


def test_best_is_chosen_by_validation_and_reports_that_rounds_test():
    chosen = best(records())
    assert (chosen["round"], chosen["selected_by"]) == (4, "val")
    assert chosen["eval/test/accuracy"] == 0.7, "the test maximum, 0.9, must not be chosen"
    assert chosen["eval/val/accuracy"] == 0.6


def test_a_choice_on_test_data_says_so():
    chosen = best(without(records(), "eval/val"))
    assert (chosen["round"], chosen["selected_by"]) == (2, "test")
    assert chosen["metric"] == "eval/test/accuracy"


def test_diverged_evaluations_are_never_best():
    rows = records()
    rows[3]["eval/val/accuracy"] = math.nan
    assert best(rows)["round"] == 6
    for row in rows:
        row["eval/val/accuracy"] = math.nan
    assert best(rows) is None, "not silently chosen by test instead"
    summary = summarize(rows, num_clients=1, clients_per_round=1, seed=0)
    evaluations = sum("eval/val/accuracy" in row for row in rows)
    assert summary["no_best"] == (
        f"eval/val/accuracy was no finite number in any of {evaluations} evaluations"
    )
    for found in (records(), without(rows, "eval"), []):
        assert summarize(found, num_clients=1, clients_per_round=1, seed=0)["no_best"] is None


def test_of_a_metric_that_is_better_low_the_lowest_wins():
    rows = [{"round": r, "eval/val/loss": loss} for r, loss in enumerate((3.0, 1.0, 2.0), 1)]
    assert best(rows, LOSS)["round"] == 2
    assert best(without(rows, "eval"), LOSS) is None


def test_final_is_the_last_evaluation():
    rows = records()
    assert final(rows[:5]) == {
        "round": 4,
        "train/loss": 0.25,
        "eval/test/accuracy": 0.7,
        "eval/val/accuracy": 0.6,
    }
    assert final(without(rows, "eval")) == {"round": 6, "train/loss": 1 / 6}
    assert final([]) is None


def test_the_target_counts_the_first_crossing():
    rows = records()
    rows[1]["eval/test/accuracy"] = math.nan
    assert to_target(rows, 0.7) == {
        "target_accuracy": 0.7,
        "metric": "eval/test/accuracy",
        "rounds": 4,
        "seconds": 15.0,
        "bytes": 2**62 + 1 + 4,
        "uplink_bytes": 2**62 + 1,
        "downlink_bytes": 4,
        "transfer_seconds": 2.0,
        "simulated_seconds": 40.0,
    }
    assert to_target(rows, 0.95) is None
    assert to_target(rows, None) is None
    assert to_target(without(rows, "eval/test"), 0.6)["metric"] == "eval/val/accuracy"
    assert to_target([], 0.5) is None


def test_a_target_of_a_metric_that_is_better_low_is_reached_from_above():
    error = Metric("error", "lower")
    rows = [{"round": r, "eval/test/error": value} for r, value in enumerate((3.0, 2.0, 1.0))]
    found = to_target(rows, 2.0, error)
    assert (found["target_error"], found["metric"], found["rounds"]) == (2.0, "eval/test/error", 1)
    assert to_target(rows, 0.9, error) is None
    assert to_target(rows, 2.0) is None


@pytest.mark.parametrize("simulated", [False, True])
@pytest.mark.parametrize("ended", [False, True])
def test_what_the_initial_model_reaches_has_cost_nothing(simulated, ended):
    rows = records()
    if not simulated:
        rows = without(without(rows, "comm/transfer_seconds"), "time/simulated_seconds")
    rows = [{"round": 0, "eval/test/accuracy": 0.9}, *([] if ended else rows)]
    found = to_target(rows, 0.7)
    nothing = {name: 0 for name in ("seconds", "bytes", "uplink_bytes", "downlink_bytes")}
    assert found.items() >= (nothing | {"rounds": 0}).items()
    known = 0 if simulated and not ended else None
    assert found["transfer_seconds"] == found["simulated_seconds"] == known
    assert found.keys() == to_target(records(), 0.7).keys()
    summary = summarize(rows, num_clients=1, clients_per_round=1, seed=0, target=0.7)
    if ended:
        costs = ("rounds", "seconds", "uplink_bytes", "downlink_bytes")
        assert [summary[name] for name in costs] == [0, 0, 0, 0]


def test_summary_has_every_figure_and_is_json():
    summary = summarize(
        records(),
        num_clients=100,
        clients_per_round=10,
        seed=3,
        target=0.8,
        compile_seconds=7.0,
    )
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    expected = {
        "rounds": 6,
        "num_clients": 100,
        "clients_per_round": 10,
        "seconds": 19.0,
        "seconds_per_round_median": 2.0,
        "compile_seconds": 7.0,
        "clients_per_second": 35.0,
        "examples_per_second": 350.0,
        "utilization": 0.75,
        "uplink_bytes": 6 * 2**60 + 1,
        "downlink_bytes": 6,
        "transfer_seconds": 3.0,
        "simulated_seconds": 60.0,
        "seed": 3,
    }
    assert {key: summary[key] for key in expected} == expected
    assert summary["to_target"]["rounds"] == 2
    rest = {"final", "best", "no_best", "to_target", "device", "versions"}
    assert set(summary) - set(expected) == rest | {"peak_memory_bytes", "host_peak_memory_bytes"}


def test_a_run_without_rounds_has_a_summary():
    summary = summarize([], num_clients=1, clients_per_round=1, seed=0)
    assert summary["rounds"] == 0 and summary["final"] is None and summary["seconds"] is None


def test_versions_and_memory():
    assert versions()["jax"] == jax.__version__
    assert peak_memory_bytes() > 20e6


@pytest.mark.parametrize(("system", "unit"), [("linux", 1024), ("darwin", 1)])
def test_resident_size_is_in_bytes_on_every_system(monkeypatch, system, unit):
    from fljax.recording import summary

    def no_file(path):
        raise FileNotFoundError(path)

    usage = type("Usage", (), {"ru_maxrss": 12345})
    monkeypatch.setattr("resource.getrusage", lambda who: usage)
    monkeypatch.setattr(summary.sys, "platform", system)
    monkeypatch.setattr(summary.Path, "read_text", no_file)
    assert summary.host_peak_memory_bytes() == 12345 * unit


def test_resident_size_is_the_process_s_own(monkeypatch):
    from fljax.recording import summary

    monkeypatch.setattr(summary.Path, "read_text", lambda path: "VmPeak:\t9 kB\nVmHWM:\t  77 kB\n")
    assert summary.host_peak_memory_bytes() == 77 * 1024
