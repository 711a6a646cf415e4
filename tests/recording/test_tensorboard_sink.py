"""The TensorBoard sink: with a stand-in for what it writes, and with the real one where it is."""

import sys
import types

import pytest

from fljax.recording import Recorder, tensorboard_sink


class FakeWriter:
    """Keeps what would be written, in a file as TensorBoard's are named."""

    opened = []

    def __init__(self, directory, flush_secs, filename_suffix):
        self.file_writer, self.scalars, self.events, self.texts = self, [], [], []
        self.path = f"{directory}/events.out.tfevents.0.host{filename_suffix}"
        with open(self.path, "w"):
            pass
        self.opened.append(self)
        self.is_open = True

    def add_summary(self, event):
        self.events.append(event)

    def add_scalar(self, name, value, step):
        self.scalars.append((name, value, step))

    def add_text(self, name, text, step):
        self.texts.append((name, step))

    def close(self):
        self.is_open = False


@pytest.fixture
def written(monkeypatch, tmp_path):
    FakeWriter.opened = []
    summary = types.SimpleNamespace(hparams=lambda values, metrics: (values,))
    module = types.SimpleNamespace(SummaryWriter=FakeWriter, summary=summary)
    monkeypatch.setitem(sys.modules, "tensorboardX", module)
    monkeypatch.setitem(sys.modules, "tensorboardX.summary", summary)
    (tmp_path / "tensorboard").mkdir()
    return FakeWriter.opened


def record(work, resume, rounds, config=None):
    sink = tensorboard_sink(work, config=config)
    with Recorder(work, resume_round=resume, sinks=[sink]) as recorder:
        for r in rounds:
            recorder.write({"round": r, "train/loss": 1.0 / r, "train/note": "text"})
        recorder.write_summary({"rounds": rounds[-1], "best": {"x": 2}, "device": "cpu"})


def test_a_resumed_run_writes_all_again_and_removes_what_was_there(written, tmp_path):
    config = {"client_lr": 0.1, "target": None, "wandb": {"mode": "disabled"}, "hidden": [8, 8]}
    record(tmp_path, None, (1, 2, 3), config)
    record(tmp_path, 2, (3, 4), config)
    first, second = written
    assert first.events == [{"client_lr": 0.1, "wandb.mode": "disabled", "hidden": "[8, 8]"}]
    last = [("summary/rounds", 4.0, 4), ("summary/best/x", 2.0, 4)]
    assert second.scalars == [("train/loss", 1.0 / r, r) for r in (1, 2, 3, 4)] + last
    assert second.texts == [("summary", 4)] and not first.is_open and not second.is_open
    files = list((tmp_path / "tensorboard").iterdir())
    assert [str(path) for path in files] == [second.path]


def test_a_run_that_ended_before_its_first_round_is_closed(written, tmp_path):
    tensorboard_sink(tmp_path).close(False)
    assert written == []


def test_without_it_the_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(ImportError, match=r"fljax\[tensorboard\]"):
        tensorboard_sink(tmp_path)


def test_the_real_one_holds_every_round_once(tmp_path):
    pytest.importorskip("tensorboardX")
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    record(tmp_path, None, (1, 2, 3), {"client_lr": 0.1})
    record(tmp_path, 2, (3, 4), {"client_lr": 0.1})
    found = accumulators.EventAccumulator(str(tmp_path / "tensorboard"))
    found.Reload()
    assert [event.step for event in found.Scalars("train/loss")] == [1, 2, 3, 4]
    assert found.Scalars("train/loss")[1].value == 0.5
    assert "_hparams_/session_start_info" in found.summary_metadata
