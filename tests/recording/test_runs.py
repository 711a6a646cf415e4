"""Reading runs back."""

import numpy as np
import pytest

from fljax.recording import Recorder, load_run


def test_a_finished_run_reads_back_whole(tmp_path):
    with Recorder(tmp_path) as recorder:
        recorder.write_config({"seed": 3})
        recorder.write({"round": 2, "train/loss": 0.5, "comm/uplink_bytes": 7})
        recorder.write({"round": 4, "train/loss": 0.25, "eval/test/accuracy": 0.9})
        recorder.write_clients({"accuracy": np.array([0.5, 1.0]), "id": np.array(["a", "b"])})
        recorder.write_summary({"rounds": 4})
    run = load_run(str(tmp_path))
    assert run.config == {"seed": 3} and run.summary == {"rounds": 4}
    assert run.rounds.dtype == np.int64 and run.rounds.tolist() == [2, 4]
    assert set(run.curves) == {"round", "train/loss", "eval/test/accuracy", "comm/uplink_bytes"}
    for key, values in recorder.curves().items():
        assert run.curves[key].dtype == np.float64
        np.testing.assert_array_equal(run.curves[key], values)
    np.testing.assert_array_equal(run.curves["eval/test/accuracy"], [np.nan, 0.9])
    np.testing.assert_array_equal(run.curves["comm/uplink_bytes"], [7, np.nan])
    assert run.client_metrics["id"].tolist() == ["a", "b"]
    assert run.baselines == {}


def test_an_unfinished_run_reads(tmp_path):
    with Recorder(tmp_path) as recorder:
        recorder.write_config({"seed": 3})
        run = load_run(tmp_path)
        assert run.rounds.size == 0 and run.curves == {} and run.summary is None
        recorder.write({"round": 1, "train/loss": 0.5})
        run = load_run(tmp_path)
    assert run.rounds.tolist() == [1] and run.summary is None and run.client_metrics is None


def test_baselines_come_along_and_are_plotted(tmp_path):
    for part in ("", "baselines/centralized", "baselines/local_only"):
        with Recorder(tmp_path / part) as recorder:
            recorder.write({"round": 1, "train/loss": 0.5, "eval/test/accuracy": 0.25})
    (tmp_path / "baselines" / "notes").mkdir()
    run = load_run(tmp_path)
    assert list(run.baselines) == ["centralized", "local_only"]
    assert run.baselines["centralized"].curves["train/loss"].tolist() == [0.5]
    assert {path.relative_to(tmp_path).as_posix() for path in run.plot()} == {
        "plots/loss.png",
        "plots/accuracy.png",
    }


def test_what_is_no_run_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent: there is no such directory"):
        load_run(tmp_path / "absent")
    with pytest.raises(FileNotFoundError, match="holds no run"):
        load_run(tmp_path)


@pytest.mark.parametrize("damage", [b"{oops\n", b"[1]\n"])
def test_a_damaged_line_is_named(tmp_path, damage):
    (tmp_path / "metrics.jsonl").write_bytes(b'{"round": 1}\n' + damage + b'{"round": 3}\n')
    with pytest.raises(ValueError, match=r"metrics\.jsonl, line 2"):
        load_run(tmp_path)


def test_damaged_metrics_of_clients_are_named(tmp_path):
    (tmp_path / "metrics.jsonl").write_bytes(b'{"round": 1}\n')
    path = tmp_path / "client_metrics.npz"
    np.savez(path, accuracy=np.arange(3.0), ids=np.array(["a", "b", "c"]))
    found = load_run(tmp_path).client_metrics
    assert found["accuracy"].tolist() == [0, 1, 2] and found["ids"].tolist() == ["a", "b", "c"]
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ValueError, match=r"client_metrics\.npz is truncated or corrupt"):
        load_run(tmp_path)


def test_a_run_without_its_records_is_read_with_a_warning(tmp_path):
    (tmp_path / "summary.json").write_text('{"rounds": 3}')
    with pytest.warns(UserWarning, match=r"has lost its metrics\.jsonl"):
        assert not len(load_run(tmp_path).rounds)


@pytest.mark.parametrize("name", ["config.json", "summary.json"])
def test_json_of_another_shape_is_named(name, tmp_path):
    (tmp_path / "metrics.jsonl").write_bytes(b'{"round": 1}\n')
    (tmp_path / name).write_text("[1, 2]")
    with pytest.raises(ValueError, match=rf"{name} holds \[1, 2\], where a JSON object belongs"):
        load_run(tmp_path)


@pytest.mark.parametrize("name", ["metrics.jsonl", "config.json"])
def test_a_directory_in_place_of_a_file_is_named(name, tmp_path):
    (tmp_path / name).mkdir()
    with pytest.raises(IsADirectoryError, match=rf"where a run has a file; move it away.*{name}"):
        load_run(tmp_path)
    with pytest.raises(IsADirectoryError, match="move it away"):
        Recorder(tmp_path)


def test_a_file_in_place_of_the_models_is_named_before_the_first_round(tmp_path):
    (tmp_path / "model").touch()
    with pytest.raises(
        NotADirectoryError, match="where a run has a directory; move it away.*model"
    ):
        Recorder(tmp_path)
