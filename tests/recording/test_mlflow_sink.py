"""The MLflow sink: with a stand-in for its client, and with the real one where it is."""

import sys
import types
from typing import Any, NamedTuple

import pytest

from fljax.recording import Recorder, mlflow_sink


class Metric(NamedTuple):
    key: str
    value: float
    timestamp: int
    step: int


class Param(NamedTuple):
    key: str
    value: str


class FakeClient:
    """A server that all clients of a test share."""

    runs: dict[str, Any] = {}
    uris: list[str] = []

    def __init__(self, tracking_uri):
        self.uris.append(tracking_uri)

    def get_experiment_by_name(self, name):
        return None

    def create_experiment(self, name):
        return f"number of {name}"

    def create_run(self, experiment, run_name):
        run_id = f"run{len(self.runs)}"
        self.runs[run_id] = {"name": run_name, "metrics": [], "params": [], "status": "RUNNING"}
        return types.SimpleNamespace(info=types.SimpleNamespace(run_id=run_id))

    def update_run(self, run_id, status):
        self.runs[run_id]["status"] = status

    def get_run(self, run_id):
        latest = {metric.key: metric.value for metric in self.runs[run_id]["metrics"]}
        return types.SimpleNamespace(data=types.SimpleNamespace(metrics=latest))

    def log_batch(self, run_id, metrics=(), params=()):
        assert len(metrics) <= 1000 and len(params) <= 100
        self.runs[run_id]["metrics"] += metrics
        self.runs[run_id]["params"] += params

    def set_terminated(self, run_id, status):
        self.runs[run_id]["status"] = status


@pytest.fixture
def runs(monkeypatch):
    FakeClient.runs, FakeClient.uris = {}, []
    module = types.SimpleNamespace(MlflowClient=FakeClient)
    entities = types.SimpleNamespace(Metric=Metric, Param=Param)
    monkeypatch.setitem(sys.modules, "mlflow", module)
    monkeypatch.setitem(sys.modules, "mlflow.entities", entities)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "false")
    return FakeClient.runs


def record(work, resume, rounds, **options):
    sink = mlflow_sink("offline", workdir=work, **options)
    with Recorder(work, resume_round=resume, sinks=[sink]) as recorder:
        for r in rounds:
            recorder.write({"round": r, "train/loss": 1.0 / r, "train/note": "text"})
        recorder.write_summary({"rounds": rounds[-1], "best": {"x": 2}})


def test_a_resumed_run_goes_on_with_the_same_run_and_repeats_nothing(runs, tmp_path):
    work = tmp_path / "first"
    record(work, None, (1, 2, 3), config={"mu": 0.5, "wandb": {"mode": "x" * 600}, "tau": None})
    record(work, 2, (3, 4))
    (run,) = runs.values()
    assert run["name"] == "first" and run["status"] == "FINISHED"
    assert run["params"] == [("mu", "0.5"), ("wandb.mode", "x" * 500)]
    losses = [(m.step, m.value) for m in run["metrics"] if m.key == "train/loss"]
    assert losses == [(r, 1.0 / r) for r in (1, 2, 3, 4)]
    assert [m.key for m in run["metrics"][:2]] == ["train/loss", "round"]
    assert [m.step for m in run["metrics"] if m.key == "summary/best/x"] == [3, 4]
    assert set(FakeClient.uris) == {f"sqlite:///{work.resolve()}/mlflow.db"}


def test_rounds_that_a_kill_kept_from_it_are_sent_later(runs, tmp_path):
    record(tmp_path, None, (1, 2, 3))
    (run,) = runs.values()
    # as if the process had died with rounds 2 and 3 not sent
    run["metrics"][:] = [metric for metric in run["metrics"] if metric.step == 1]
    record(tmp_path, 3, (4,))
    assert [m.step for m in run["metrics"] if m.key == "round"] == [1, 2, 3, 4]


def test_a_run_that_fails_is_said_to_have_failed(runs, tmp_path):
    with pytest.raises(KeyError), Recorder(None, sinks=[mlflow_sink("offline")]) as recorder:
        recorder.write({"round": 1, "train/loss": 1.0})
        raise KeyError
    (run,) = runs.values()
    assert run["status"] == "FAILED" and len(run["metrics"]) == 2 and run["name"] is None


def test_where_it_goes_agrees_with_the_mode(runs, monkeypatch, tmp_path):
    with pytest.raises(ValueError, match="'on'.*'disabled', 'offline', 'online'"):
        mlflow_sink("on")
    with pytest.raises(ValueError, match="MLFLOW_TRACKING_URI"):
        mlflow_sink("online")
    with pytest.raises(ValueError, match="http://server.*no local database"):
        mlflow_sink("offline", uri="http://server")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    mlflow_sink("online").close(True)
    mlflow_sink("online", uri="http://127.0.0.1:8").close(True)
    assert FakeClient.uris == ["http://127.0.0.1:9", "http://127.0.0.1:8"]
    with Recorder(None, sinks=[mlflow_sink("disabled", workdir=tmp_path)]) as recorder:
        recorder.write({"round": 1})
        recorder.write_summary({})
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(ImportError, match=r"fljax\[mlflow\]"):
        mlflow_sink("offline")


def test_the_real_one_holds_every_round_once(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("alembic")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    record(tmp_path / "first", None, (1, 2, 3), config={"mu": 0.5})
    record(tmp_path / "first", 2, (3, 4))
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/first/mlflow.db")
    (run,) = client.search_runs([client.get_experiment_by_name("fljax").experiment_id])
    history = client.get_metric_history(run.info.run_id, "train/loss")
    assert sorted((m.step, m.value) for m in history) == [(r, 1.0 / r) for r in (1, 2, 3, 4)]
    assert run.data.params == {"mu": "0.5"} and run.info.status == "FINISHED"
    assert run.data.metrics["summary/best/x"] == 2.0
