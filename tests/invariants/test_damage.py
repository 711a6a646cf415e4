"""A run whose files were damaged goes on from what is whole, or is refused; nothing else."""

import shutil
import warnings

import jax
import numpy as np
import pytest
import toy
from small_sweeps import assert_same_rows, small_config

import fljax
from fljax import algorithms
from fljax.recording import Checkpoints, Recorder
from fljax.recording.checksums import CHECKSUMS
from fljax.recording.lock import locked
from fljax.studies import results

pytestmark = pytest.mark.usefixtures("quick_compilation")


def run(workdir, num_rounds=8, **options):
    return fljax.simulate(
        toy.dataset(toy.clients(dtype=np.float32)), toy.softmax_task(np.float32),
        algorithms.scaffold(0.1), num_rounds=num_rounds, clients_per_round=4, batch_size=4,
        workdir=workdir, devices=1, eval_every=2, checkpoint_every=2, keep_checkpoints=3,
        progress=False, **options,
    )  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of eight rounds, and one that ended after six and can be gone on with."""
    directory = tmp_path_factory.mktemp("runs")
    whole = run(directory / "whole")
    run(directory / "six", num_rounds=6)
    return whole, directory / "six"


@pytest.fixture
def workdir(finished, tmp_path):
    return shutil.copytree(finished[1], tmp_path / "run")


def change(path, old, new):
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new, 1))


def of_clock(key):
    return key.startswith(("time/", "throughput/"))


def break_arrays(workdir):
    for path in (workdir / "checkpoints/6/arrays").rglob("*"):
        if path.is_file() and path.stat().st_size > 300:
            data = bytearray(path.read_bytes())
            data[len(data) // 2] ^= 16
            path.write_bytes(data)


def break_records(workdir):
    change(workdir / "metrics.jsonl", b'{"round": 5, "', b'{"round": 5,  "')


@pytest.mark.parametrize("damage", [break_arrays, break_records])
def test_a_run_goes_on_from_the_newest_whole_checkpoint(damage, workdir, finished):
    damage(workdir)
    with pytest.warns(UserWarning, match="round 6 in .*Going on from that of round 4"):
        resumed = run(workdir, resume=True)
    whole = finished[0]
    jax.tree.map(np.testing.assert_array_equal, whole.variables, resumed.variables)
    read = fljax.load_run(workdir)
    for curves in (resumed.curves, read.curves):
        for key in whole.curves:
            if not of_clock(key):
                np.testing.assert_array_equal(curves[key], whole.curves[key], err_msg=key)


REFUSED = {
    "No other one is whole": lambda w: change(
        w / "metrics.jsonl", b'{"round": 1, ', b'{"round":1,'
    ),
    "none of its checkpoints": lambda w: shutil.rmtree(w / "checkpoints"),
    "has completed 6 rounds": lambda w: None,
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_cannot_be_gone_on_with_is_refused_and_left_alone(message, workdir):
    REFUSED[message](workdir)
    before = {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()}
    fewer = {"num_rounds": 5} if "completed" in message else {}
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        run(workdir, resume=True, **fewer)
    after = {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()}
    assert after == before


def test_a_run_whose_records_were_removed_is_refused(workdir):
    (workdir / "metrics.jsonl").unlink()
    before = {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match=r"metrics.jsonl is not what was written until then"):
        run(workdir, resume=True)
    assert before == {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()}


def test_a_directory_that_another_process_holds_is_not_touched(workdir):
    before = (workdir / "metrics.jsonl").read_bytes()
    with locked(workdir), pytest.raises(BlockingIOError, match="in use by process"):
        run(workdir, resume=True)
    assert (workdir / "metrics.jsonl").read_bytes() == before


def test_the_summary_is_the_last_that_is_written(tmp_path, monkeypatch):
    seen = []

    def look(recorder, summary):
        with Checkpoints(tmp_path / "checkpoints") as checkpoints:
            seen.append(checkpoints.rounds()[-1])
        assert fljax.load_model(tmp_path)
        assert fljax.load_run(tmp_path).client_metrics is not None

    monkeypatch.setattr(Recorder, "write_summary", look)
    run(tmp_path, num_rounds=2, eval_clients=-1)
    assert seen == [2]


def swept(workdir, resume=False):
    return fljax.sweep(
        small_config(num_rounds=4, devices=1), workdir, resume=resume, progress=False,
        axes={"client_lr": (0.05, 0.1)}, parallel_trials=1,
    )  # fmt: skip


def test_a_sweep_goes_on_from_the_newest_whole_checkpoint(tmp_path):
    whole = swept(tmp_path / "sweep")
    newest = max(int(path.name) for path in (tmp_path / "sweep/checkpoints").iterdir())
    shutil.rmtree(tmp_path / f"sweep/checkpoints/{newest}/arrays")
    with pytest.warns(UserWarning, match="Going on from that of round"):
        resumed = swept(tmp_path / "sweep", resume=True)
    rows = [
        [{k: v for k, v in row.items() if not of_clock(k)} for row in run.results.rows]
        for run in (whole, resumed)
    ]
    assert_same_rows(*rows, rtol=0)
    with locked(tmp_path / "sweep"), pytest.raises(BlockingIOError):
        swept(tmp_path / "sweep", resume=True)
    # rows that were changed are no rows that a checkpoint counts on
    change(tmp_path / "sweep/results.jsonl", b'"round": 0', b'"round":  0')
    with pytest.raises(ValueError, match=r"results\.jsonl is not what was written"):
        swept(tmp_path / "sweep", resume=True)
    with pytest.raises(ValueError, match="is damaged"), warnings.catch_warnings():
        results.load(tmp_path / "sweep")
    (tmp_path / "sweep" / CHECKSUMS).unlink()
    line = (tmp_path / "sweep/results.jsonl").read_bytes().splitlines(keepends=True)[-1]
    with open(tmp_path / "sweep/results.jsonl", "ab") as file:
        file.write(line)
    with pytest.raises(ValueError, match="two processes"):
        results.load(tmp_path / "sweep")
