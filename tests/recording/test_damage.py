"""Whatever changes on disk is detected or harmless: checkpoints, records, summaries, arrays."""

import json
import os
import shutil
import warnings

import jax
import numpy as np
import pytest

from fljax.recording import Checkpoints, Recorder, load_run
from fljax.recording.checksums import CHECKSUMS, Extent
from fljax.recording.line_file import LineFile


def state(seed):
    rng = np.random.default_rng(seed)
    return {
        "params": {"w": rng.normal(size=(7, 5)).astype(np.float32), "b": rng.normal(size=5)},
        "rows": rng.integers(0, 2**40, (3, 4)),
        "round": seed,
    }


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    directory = tmp_path_factory.mktemp("saved") / "checkpoints"
    with Checkpoints(directory) as checkpoints:
        for round in (10, 20):
            checkpoints.save(round, state(round), {"plan": {"lanes": 4}, "bytes": 2**70})
    return directory


@pytest.fixture
def directory(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "checkpoints")


def newest(directory):
    """Returns (round, warnings) of the newest whole checkpoint, whose state must be as saved."""
    with Checkpoints(directory) as checkpoints, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        round = checkpoints.newest_whole()
        found, metadata = checkpoints.restore(round, state(0))
    jax.tree.map(np.testing.assert_array_equal, found, state(round))
    assert metadata == {"plan": {"lanes": 4}, "bytes": 2**70}
    return round, [str(warning.message) for warning in caught]


def files(directory):
    return sorted(path for path in directory.rglob("*") if path.is_file())


def flip(path, bit):
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


def test_flipped_bits_of_a_checkpoint_are_found_or_change_nothing(directory):
    rng = np.random.default_rng(0)
    found = 0
    for path in files(directory / "20"):
        whole = path.read_bytes()
        for bit in rng.choice(8 * len(whole), min(4, 8 * len(whole)), replace=False):
            flip(path, bit)
            round, lines = newest(directory)
            assert (round, len(lines)) in ((20, 0), (10, 1)), (path, bit, lines)
            if round == 10:
                assert lines[0].count("\n") == 0 and "checkpoint of round 20" in lines[0]
                assert "Going on from that of round 10" in lines[0]
            found += round == 10
            path.write_bytes(whole)
    assert found > 10


def _swap(one, other):
    one.rename(one.with_name("aside"))
    other.rename(one)
    one.with_name("aside").rename(other)


DAMAGE = {
    "empty arrays": lambda d: [path.write_bytes(b"") for path in files(d / "20" / "arrays")],
    "cut description": lambda d: (d / "20/description/metadata").write_bytes(b'{"leaves"'),
    "no description": lambda d: (d / "20/description/metadata").unlink(),
    "no arrays": lambda d: shutil.rmtree(d / "20" / "arrays"),
    "no data": lambda d: shutil.rmtree(next((d / "20").rglob("d"))),
    "empty folder": lambda d: (shutil.rmtree(d / "20"), (d / "20").mkdir()),
    "a later name": lambda d: (d / "20").rename(d / "30"),
    "a copy under a later name": lambda d: shutil.copytree(d / "10", d / "40"),
    "swapped names": lambda d: _swap(d / "10" / "description", d / "20" / "description"),
    "swapped arrays": lambda d: _swap(d / "10" / "arrays", d / "20" / "arrays"),
    "half a save": lambda d: (d / "20").rename(d / "20.orbax-checkpoint-tmp"),
    "numbers changed": lambda d: _edit(d / "20/description/metadata", '"lanes": 4', '"lanes": 5'),
    "no checksum": lambda d: _edit(d / "20/description/metadata", '"checksum"', '"checksun"'),
    "extra files": lambda d: [(d / n).write_text("x") for n in ("notes.txt", "99", "20/more")],
    "extra folders": lambda d: [(d / n).mkdir() for n in ("old", "020", "-5", "20 copy", "5")],
}


def _edit(path, old, new):
    text = path.read_text()
    if old not in text:
        old, new = old.replace(": ", ":"), new.replace(": ", ":")
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_taken(name, directory):
    DAMAGE[name](directory)
    try:
        round, lines = newest(directory)
    except ValueError as error:
        assert name.startswith("swapped") and "No other one is whole" in str(error)
        return
    expected = 20 if name.startswith(("extra", "a copy")) else 10
    assert round == expected
    if name not in ("half a save", "extra files", "extra folders"):
        assert len(lines) == 1 and "\n" not in lines[0]
    # the next save takes the place of what was damaged, under any name
    with Checkpoints(directory) as checkpoints, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        checkpoints.newest_whole()
        for later in (expected + 2, 50):
            checkpoints.save(later, state(later), {"plan": {"lanes": 4}, "bytes": 2**70})
    assert newest(directory) == (50, [])


def test_without_a_whole_one_all_are_named_and_none_is_removed(directory):
    for round in (10, 20):
        shutil.rmtree(directory / str(round) / "arrays")
    with Checkpoints(directory) as checkpoints, pytest.raises(ValueError) as error:
        checkpoints.newest_whole()
    for words in ("round 20", "round 10", "No other one is whole", "another --workdir"):
        assert words in str(error.value)
    assert (directory / "10").is_dir() and (directory / "20").is_dir()


def test_a_checkpoint_without_checksums_is_taken_with_a_warning(directory):
    path = directory / "20/description/metadata"
    description = json.loads(path.read_text())
    old = {"metadata": description["metadata"], "leaves": description["leaves"]}
    for leaf in old["leaves"]:
        leaf.pop("crc32", None)
    path.write_text(json.dumps(old))
    round, lines = newest(directory)
    assert round == 20 and "no checksums" in lines[0]


@pytest.fixture
def run(tmp_path):
    """A finished run, without its checkpoints."""
    with Recorder(tmp_path / "run") as recorder:
        recorder.write_config({"client_lr": 0.1, "sizes": [1, 2], "target_accuracy": None})
        for round in range(1, 6):
            recorder.write({"round": round, "train/loss": 1.0 / round, "eval/test/accuracy": 0.5})
        recorder.write_summary({"rounds": 5, "final": {"eval/test/accuracy": 0.5}})
        recorder.write_clients({"client": np.arange(4), "accuracy": np.linspace(0, 1, 4)})
    return tmp_path / "run"


def same(one, other):
    return (
        (one.config, one.summary) == (other.config, other.summary)
        and one.curves.keys() == other.curves.keys()
        and all(np.array_equal(one.curves[key], other.curves[key]) for key in one.curves)
        and all(
            np.array_equal(one.client_metrics[key], other.client_metrics[key])
            for key in one.client_metrics
        )
    )


def test_flipped_bits_of_a_run_are_found_or_change_nothing(run):
    rng = np.random.default_rng(1)
    whole_run, names = load_run(run), set()
    for path in files(run):
        whole = path.read_bytes()
        for bit in rng.choice(8 * len(whole), min(40, 8 * len(whole)), replace=False):
            flip(path, bit)
            try:
                assert same(load_run(run), whole_run), (path, bit)
            except ValueError as error:
                names.add(path.name)
                assert str(run) in str(error) and "\n" not in str(error)
            path.write_bytes(whole)
    assert names == {
        CHECKSUMS, "client_metrics.npz", "config.json", "metrics.jsonl", "summary.json",
    }  # fmt: skip
    # whoever changes a file by hand says so by removing the checksums
    (run / "config.json").write_text('{"client_lr": 0.2}')
    with pytest.raises(ValueError, match="config.json is damaged"):
        load_run(run)
    (run / CHECKSUMS).unlink()
    assert load_run(run).config == {"client_lr": 0.2}


def test_a_kill_between_a_file_and_its_checksum_harms_nothing(run):
    before = {path.name: path.read_bytes() for path in files(run)}
    with Recorder(run, resume_round=5, extent=None) as recorder:
        recorder.write_config({"client_lr": 0.1})
    # the new checksums beside the old file, as a kill leaves them
    (run / "config.json").write_bytes(before["config.json"])
    assert load_run(run).config["sizes"] == [1, 2]


def test_records_that_do_not_increase_are_refused(run):
    lines = (run / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    (run / CHECKSUMS).unlink()
    for order in ([0, 1, 1, 2], [0, 2, 1, 3], [0, 1, 0, 1]):
        (run / "metrics.jsonl").write_bytes(b"".join(lines[index] for index in order))
        with pytest.raises(ValueError, match="line . records round .* two processes"):
            load_run(run)
        with pytest.raises(ValueError, match="two processes"):
            Recorder(run, resume_round=4)


def test_only_what_a_checkpoint_counts_on_is_read(run):
    data = (run / "metrics.jsonl").read_bytes()
    extent = Extent().plus(b"".join(data.splitlines(keepends=True)[:3]))
    (run / "metrics.jsonl").write_bytes(data[: extent.size] + b"\xff\x00 damaged\n" + data)
    with Recorder(run, resume_round=3, extent=extent) as recorder:
        assert [record["round"] for record in recorder.records] == [1, 2, 3]
    assert load_run(run).rounds.tolist() == [1, 2, 3]
    flip(run / "metrics.jsonl", 100)
    with pytest.raises(ValueError, match="metrics.jsonl is damaged"):
        Recorder(run, resume_round=3, extent=extent)


def test_lines_that_vanish_or_find_no_room_name_their_file(tmp_path, monkeypatch):
    path = tmp_path / "lines"
    file = LineFile(path)
    file.append([b"one"])
    file.sync()
    path.unlink()
    with pytest.raises(FileNotFoundError, match="removed while it was written.*lines"):
        file.sync()
    full = os.open("/dev/full", os.O_WRONLY)
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(full, data))
    with pytest.raises(OSError, match="No space left on device: .*lines"):
        file.append([b"two"])
    file.close()
    os.close(full)
