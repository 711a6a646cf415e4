"""The recorder: nothing lost, nothing twice, nothing half."""

import json
import math
import signal
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fljax.recording import Recorder, Sink, load_run
from fljax.training.resume import find_start


def record(round, **values):
    return {"round": round, "train/loss": 1.0 / round, **values}


def lines(workdir):
    return (workdir / "metrics.jsonl").read_bytes().splitlines()


def test_a_killed_process_loses_no_round(tmp_path):
    program = (
        "import os, signal, sys\n"
        "from fljax.recording import Recorder\n"
        "recorder = Recorder(sys.argv[1])\n"
        "for r in range(1, 8): recorder.write({'round': r, 'train/loss': 1 / r})\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    np.testing.assert_array_equal(load_run(tmp_path).rounds, np.arange(1, 8))
    np.testing.assert_array_equal(load_run(tmp_path).curves["train/loss"], 1 / np.arange(1, 8))


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.integers(0, 400), resume=st.integers(-1, 12))
def test_any_cut_reads_and_resumes_without_duplicates(tmp_path_factory, cut, resume):
    whole = tmp_path_factory.mktemp("whole")
    with Recorder(whole) as recorder:
        for r in range(1, 10):
            recorder.write(record(r, **{"eval/test/accuracy": math.nan if r % 3 else 0.1 * r}))
    data = (whole / "metrics.jsonl").read_bytes()

    killed = tmp_path_factory.mktemp("killed")
    (killed / "metrics.jsonl").write_bytes(data[: min(cut, len(data))])
    complete = data[:cut].count(b"\n")
    np.testing.assert_array_equal(load_run(killed).rounds, np.arange(1, complete + 1))

    resume = min(resume, complete)
    with Recorder(killed, resume_round=resume) as recorder:
        assert [r["round"] for r in recorder.records] == list(range(1, resume + 1))
        for r in range(max(resume, 0) + 1, 10):
            recorder.write(record(r, **{"eval/test/accuracy": math.nan if r % 3 else 0.1 * r}))
        curves = recorder.curves()
    assert (killed / "metrics.jsonl").read_bytes() == data
    for key, values in load_run(whole).curves.items():
        np.testing.assert_array_equal(curves[key], values)


def test_values_without_json_spelling_are_null_on_disk_and_nan_in_memory(tmp_path):
    values = {"a": math.nan, "b": math.inf, "c": np.float32(-math.inf), "d": jnp.float32(0.1)}
    values |= {"e": np.int64(2**60 + 1), "f": jnp.bfloat16(0.5)}
    with Recorder(tmp_path) as recorder:
        recorder.write({"round": np.int32(1), **values})
        kept = recorder.records[0]
    strict = json.loads(lines(tmp_path)[0], parse_constant=lambda name: pytest.fail(name))
    assert [strict[k] for k in "abc"] == [None] * 3
    assert all(math.isnan(kept[k]) for k in "abc")
    assert strict["d"] == kept["d"] == float(np.float32(0.1))
    assert strict["e"] == kept["e"] == 2**60 + 1
    assert strict["f"] == kept["f"] == 0.5
    with Recorder(tmp_path, resume_round=1) as again:
        np.testing.assert_equal(again.records, [kept])


def test_a_fresh_start_refuses_a_directory_with_a_run(tmp_path):
    with Recorder(tmp_path) as recorder:
        recorder.write(record(1))
    with pytest.raises(FileExistsError, match=r"--resume .*another --workdir"):
        Recorder(tmp_path)
    assert len(lines(tmp_path)) == 1

    (tmp_path / "other" / "checkpoints" / "5").mkdir(parents=True)
    with pytest.raises(FileExistsError, match="already holds a run"):
        Recorder(tmp_path / "other")


def test_a_run_has_no_place_in_the_folder_of_a_study(tmp_path):
    (tmp_path / "config.json").write_text('{"config": {}, "sweep": {}}')
    for start in (Recorder, lambda folder: find_start(None, folder, num_rounds=3)):
        with pytest.raises(FileExistsError, match="holds a study, and no run"):
            start(tmp_path)


def test_a_run_that_failed_before_its_first_round_may_start_again(tmp_path):
    with Recorder(tmp_path) as recorder:
        recorder.write_config({"seed": 1})
    with Recorder(tmp_path) as recorder:
        recorder.write(record(1))
    assert len(lines(tmp_path)) == 1


def test_resume_removes_the_outputs_of_a_finished_run(tmp_path):
    with Recorder(tmp_path) as recorder:
        recorder.write(record(1))
        recorder.write_clients({"accuracy": np.ones(3)})
        recorder.write_summary({"rounds": 1})
    assert load_run(tmp_path).summary == {"rounds": 1}
    with Recorder(tmp_path, resume_round=1):
        run = load_run(tmp_path)
    assert run.summary is None and run.client_metrics is None


def test_resume_past_the_recorded_rounds_warns(tmp_path):
    with Recorder(tmp_path) as recorder:
        recorder.write(record(3))
    with pytest.warns(UserWarning, match="ends at round 3, before the checkpoint of round 7"):
        Recorder(tmp_path, resume_round=7).close()


def test_rounds_are_recorded_once_and_in_order():
    recorder = Recorder(None)
    recorder.write(record(2))
    for wrong in (2, 1):
        with pytest.raises(ValueError, match=f"round {wrong} comes after that of round 2"):
            recorder.write(record(wrong))
    with pytest.raises(ValueError, match="needs a 'round'"):
        recorder.write({"train/loss": 1.0})
    assert len(recorder.records) == 1


def test_without_a_workdir_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with Recorder(None) as recorder:
        recorder.write(record(1))
        recorder.write_config({})
        recorder.write_summary({})
        recorder.write_clients({"a": [1.0]})
        recorder.flush()
    assert recorder.curves()["train/loss"].tolist() == [1.0]
    assert list(tmp_path.iterdir()) == []


def test_config_is_sorted_plain_json_and_leaves_no_temporary_file(tmp_path):
    config = {"b": jnp.arange(2), "a": {"z": np.float32(0.5), "path": tmp_path}, "c": (1, None)}
    with Recorder(tmp_path) as recorder:
        recorder.write_config(config)
        first = (tmp_path / "config.json").read_bytes()
        recorder.write_config(dict(reversed(config.items())))
    assert (tmp_path / "config.json").read_bytes() == first
    expected = {"a": {"path": str(tmp_path), "z": 0.5}, "b": [0, 1], "c": [1, None]}
    assert json.loads(first) == expected
    assert list(json.loads(first)) == sorted(expected)
    assert {p.name for p in tmp_path.iterdir()} == {
        "checksums.json", "config.json", "metrics.jsonl",
    }  # fmt: skip


def test_a_failed_write_keeps_the_old_file(tmp_path):
    class Unwritable:
        def __str__(self):
            raise RuntimeError("no")

    with Recorder(tmp_path) as recorder:
        recorder.write_config({"seed": 1})
        with pytest.raises(RuntimeError):
            recorder.write_config({"seed": Unwritable()})
    assert load_run(tmp_path).config == {"seed": 1}


def test_client_metrics_of_python_objects_are_refused(tmp_path):
    with Recorder(tmp_path) as recorder, pytest.raises(ValueError, match="'ids'"):
        recorder.write_clients({"ids": np.array([1, "a", None], object)})


def test_sinks_hear_everything_once():
    heard = []
    sink = Sink(
        lambda record: heard.append(record["round"]),
        lambda summary: heard.append(summary),
        lambda succeeded: heard.append(succeeded),
    )
    with Recorder(None) as recorder:
        recorder.add_sink(sink)
        recorder.write(record(1))
        recorder.write_summary({"rounds": 1})
    recorder.close()
    assert heard == [1, {"rounds": 1}, True]

    heard.clear()
    with pytest.raises(KeyError), Recorder(None, sinks=[sink]):
        raise KeyError
    assert heard == [False]
