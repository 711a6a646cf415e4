"""Activity of 30 people: signals and statistics of the official archive, and of the rounded one."""

import numpy as np
import pytest

from fljax import data
from fljax.data.sources import activity

ROWS = {"train": 8, "test": 4}
SUBJECTS = {"train": [1, 1, 3, 3, 3, 5, 5, 30], "test": [2, 4, 4, 2]}


@pytest.fixture
def archive(tmp_path, monkeypatch):
    """Writes the official folder of a few windows; returns its parent and its signals."""
    monkeypatch.setattr(activity, "_ROWS", ROWS)
    monkeypatch.setattr(activity, "_STEPS", 6)
    monkeypatch.setattr(activity, "_STATISTICS", 5)
    rng = np.random.default_rng(0)
    folder = tmp_path / "uci_har" / "UCI HAR Dataset"
    signals, labels = {}, {}
    for split, rows in ROWS.items():
        (folder / split / "Inertial Signals").mkdir(parents=True)
        signals[split] = rng.integers(-9999, 9999, (rows, 9, 6)).astype(np.int16)
        labels[split] = np.arange(rows) % 6
        for channel, name in enumerate(activity._CHANNELS):
            path = folder / split / "Inertial Signals" / f"{name}_{split}.txt"
            np.savetxt(path, signals[split][:, channel] * 0.0002, fmt="%16.7e", delimiter="")
        np.savetxt(folder / split / f"X_{split}.txt", rng.uniform(-1, 1, (rows, 5)), fmt="%16.7e")
        np.savetxt(folder / split / f"y_{split}.txt", labels[split] + 1, fmt="%d")
        np.savetxt(folder / split / f"subject_{split}.txt", SUBJECTS[split], fmt="%d")
    return tmp_path, signals, labels


def test_people_are_clients_and_the_official_test_people_are_held_out(archive):
    root, signals, labels = archive
    dataset = data.load("uci_har", data_dir=root, standardize=False)
    assert dataset.client_ids.tolist() == [1, 3, 5, 30]
    assert dataset.held_out_ids.tolist() == [2, 4] and dataset.test.num_rows == 4
    found = dataset.train.examples.arrays
    expected = signals["train"].transpose(0, 2, 1) * 0.0002
    np.testing.assert_allclose(found["x"], expected, atol=1e-6)
    assert found["x"].dtype == np.float32 and found["y"].tolist() == labels["train"].tolist()
    own = data.load("uci_har", data_dir=root, own_test_fraction=0.25)
    assert own.num_clients == 6
    statistics = data.uci_har(data_dir=root, features="statistics")
    assert statistics.train.examples.arrays["x"].shape == (8, 5)
    text = root / "uci_har" / "UCI HAR Dataset" / "test" / "X_test.txt"
    np.testing.assert_allclose(statistics.test.examples.arrays["x"], np.loadtxt(text), atol=1e-6)


def test_rounded_signals_equal_those_of_the_archive(archive):
    root, signals, labels = archive
    of_folder = data.uci_har(data_dir=root)
    # people of both splits in turn, as the rounded archive has them
    x, y, subject = (
        np.concatenate([part["test"], part["train"]]) for part in (signals, labels, SUBJECTS)
    )
    np.savez(
        root / "uci_har" / "uci_har_signals.npz",
        x_int16=x, scale=np.float32(0.0002), y=y, subject=subject, official_test_subjects=[2, 4],
    )  # fmt: skip
    of_npz = data.uci_har(data_dir=root)
    for role in ("train", "test"):
        found, expected = (getattr(d, role).examples.arrays for d in (of_npz, of_folder))
        np.testing.assert_allclose(found["x"], expected["x"], atol=1e-4)
        np.testing.assert_array_equal(found["y"], expected["y"])
    np.testing.assert_array_equal(of_npz.train.partition.sizes, of_folder.train.partition.sizes)


def test_signals_at_hand_have_mean_0_and_deviation_1(data_dir):
    if not (data_dir / "uci_har" / "uci_har_signals.npz").is_file():
        pytest.skip("FLJAX_DATA_DIR has no uci_har")
    dataset = data.uci_har(data_dir=data_dir)
    assert dataset.num_clients == 21 and dataset.held_out.partition.num_clients == 9
    x = dataset.train.examples.arrays["x"]
    assert np.abs(x.mean((0, 1))).max() < 1e-3 and np.abs(x.std((0, 1)) - 1).max() < 1e-3


def test_what_is_missing_or_broken_is_named(archive):
    root, *_ = archive
    folder = root / "uci_har" / "UCI HAR Dataset" / "train"
    (folder / "y_train.txt").write_text("1 2 3 4 5 6 7 1")
    with pytest.raises(ValueError, match="y_train.txt holds numbers that are not 1 to 6"):
        data.uci_har(data_dir=root)
    (folder / "y_train.txt").write_text("1 2 x")
    with pytest.raises(ValueError, match="y_train.txt is truncated or corrupt"):
        data.uci_har(data_dir=root)
    (folder / "y_train.txt").write_text("1 2 3")
    with pytest.raises(ValueError, match="y_train.txt holds 3 numbers, not 8 rows of 1"):
        data.uci_har(data_dir=root)
    (folder / "X_train.txt").unlink()
    with pytest.raises(FileNotFoundError, match="X_train.txt"):
        data.uci_har(data_dir=root, features="statistics")
    with pytest.raises(ValueError, match="features = 'all'"):
        data.uci_har(data_dir=root, features="all")
