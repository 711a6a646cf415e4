"""The W&B sink: offline for real, online against a stand-in."""

import sys

import pytest
import wandb

from fljax.recording import Recorder, wandb_sink


class FakeRun:
    """Records what W&B would be sent."""

    def __init__(self, step):
        self.step, self.logged, self.summary, self.exit_code = step, [], {}, None

    def log(self, values, step):
        self.step = step
        self.logged.append((step, values))

    def finish(self, exit_code):
        self.exit_code = exit_code


@pytest.fixture(autouse=True)
def isolated(monkeypatch, tmp_path):
    """Keeps W&B's own files in the test's directory, and any call to the network failing."""
    for name in ("CONFIG", "CACHE", "DATA", "ARTIFACT"):
        monkeypatch.setenv(f"WANDB_{name}_DIR", str(tmp_path / "wandb_home"))
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.delenv("WANDB_MODE", raising=False)


def test_offline_writes_a_run_and_a_resumed_one_keeps_its_id(tmp_path, capfd):
    work = tmp_path / "work"
    for resume, rounds in ((None, (1, 2)), (1, (2, 3))):
        sink = wandb_sink("offline", project="p", config={"lr": 0.1}, workdir=work, tags=("t",))
        with Recorder(work, resume_round=resume, sinks=[sink]) as recorder:
            for r in rounds:
                recorder.write({"round": r, "train/loss": float("nan")})
            recorder.write_summary({"final": {"accuracy": 0.5}})
    # A run's end is not waited for by W&B's service, which writes the files: its own end is.
    wandb.teardown()
    files = sorted((work / "wandb").glob("offline-run-*/*.wandb"))
    run_id = (work / "wandb_run_id.txt").read_text()
    assert len(files) == 2 and {file.name for file in files} == {f"run-{run_id}.wandb"}
    assert all(b"train/loss" in file.read_bytes() for file in files)
    assert capfd.readouterr() == ("", "")


def test_records_go_out_by_round_and_repeated_rounds_do_not(monkeypatch, tmp_path):
    run, asked = FakeRun(step=3), {}
    monkeypatch.setattr("wandb.init", lambda **options: asked.update(options) or run)
    sink = wandb_sink("online", project="p", name="n", group="g", workdir=tmp_path)
    with pytest.raises(KeyError), Recorder(None, sinks=[sink]) as recorder:
        for r in (2, 3, 5):
            recorder.write({"round": r, "train/loss": 1.0 / r})
        recorder.write_summary({"rounds": 5})
        raise KeyError
    assert run.logged == [(r, {"round": r, "train/loss": 1.0 / r}) for r in (3, 5)]
    assert run.summary == {"rounds": 5} and run.exit_code == 1
    assert {key: asked[key] for key in ("mode", "project", "name", "group", "resume")} == {
        "mode": "online",
        "project": "p",
        "name": "n",
        "group": "g",
        "resume": "allow",
    }
    assert asked["id"] == (tmp_path / "wandb_run_id.txt").read_text()


def test_disabled_needs_no_wandb_and_an_unknown_mode_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with Recorder(None, sinks=[wandb_sink("disabled", workdir=tmp_path)]) as recorder:
        recorder.write({"round": 1})
        recorder.write_summary({})
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ImportError, match="pip install wandb"):
        wandb_sink("offline", workdir=tmp_path)
    with pytest.raises(ValueError, match="mode = 'on'.*'disabled', 'offline', 'online'"):
        wandb_sink("on")
