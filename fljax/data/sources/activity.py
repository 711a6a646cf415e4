"""Human activity recognition: what 30 people did, from the phone at their waist.

Anguita et al. 2013 (UCI HAR): windows of 2.56 seconds, 50 a second, of acceleration and rotation.
Windows of one person overlap by half, so the official split is by person: 21 train, 9 are tested.
"""

from __future__ import annotations

import pathlib

import numpy as np

from fljax.core.archives import open_bounded, read_npz, refused, whole
from fljax.core.data_files import missing_files, resolve_data_dir
from fljax.core.values import Field, checked
from fljax.data.arrays import from_arrays
from fljax.data.dataset import FederatedDataset

_NAMES = (
    *("walking", "walking upstairs", "walking downstairs"),
    *("sitting", "standing", "laying"),
)
_CHANNELS = tuple(
    f"{kind}_{axis}" for kind in ("body_acc", "body_gyro", "total_acc") for axis in "xyz"
)
# Means and standard deviations of each channel over the windows of the people who train.
_MEANS = (-0.0006, -0.0003, -0.0003, 0.0005, -0.0008, 0.0001, 0.8047, 0.0288, 0.0865)
_DEVIATIONS = (0.1948, 0.1224, 0.1069, 0.4068, 0.3819, 0.2557, 0.4141, 0.3910, 0.3578)
_ROWS = {"train": 7352, "test": 2947}
_STEPS, _STATISTICS = 128, 561
_SUBJECTS = 30
_SIGNALS = "uci_har_signals.npz"
_FOLDER = "UCI HAR Dataset"
_MOST_BYTES = 256 << 20
_FEATURES = Field("signals", str, ("signals", "statistics"))


def uci_har(
    *, data_dir=None, features: str = "signals", standardize: bool = True, **clients
) -> FederatedDataset:
    """UCI HAR: 10,299 windows of 30 people, six activities; the natural clients are the people.

    Reads, for signals, `uci_har/uci_har_signals.npz` of the data directory (rounded to 0.0002 of
    their unit), else the official archive, unpacked as `uci_har/UCI HAR Dataset/`; for statistics
    the latter. The rows of the nine people of the official test set are the global test set, and
    the people `held_out` clients. With own_test_fraction = 0.25 instead, as in MOCHA (Smith et al.
    2017, arXiv:1705.10467), all 30 train; test windows then overlap with training windows, which
    flatters.

    Args:
      data_dir: See `fljax.core.data_files.resolve_data_dir`.
      features: "signals", x float32[128, 9]: acceleration without gravity, rotation, acceleration;
        or "statistics", x float32[561] in [-1, 1], those that the authors made of the signals.
      standardize: Whether signals have mean 0 and deviation 1 in each channel, over the people of
        the official training set; else g and radians a second. Statistics stay as they are.
      **clients: As in `mnist`; the default partition is "natural".

    Raises:
      FileNotFoundError: If a file is missing.
      ValueError: If a file is not what was expected, or the partition is not possible.

    Example:
      >>> dataset = data.uci_har(features="statistics")  # doctest: +SKIP
    """
    features = checked("features", features, _FEATURES)
    standardize = checked("standardize", standardize, Field(True, bool))
    root = resolve_data_dir(data_dir)
    archive, folder = root / "uci_har" / _SIGNALS, root / "uci_har" / _FOLDER
    if features == "signals" and archive.is_file():
        splits = _of_archive(archive)
    else:
        splits = [_of_folder(folder, split, features, root) for split in _ROWS]
    if features == "signals" and standardize:
        mean, deviation = np.float32(_MEANS), np.float32(_DEVIATIONS)
        splits = [((x - mean) / deviation, y, subjects) for x, y, subjects in splits]
    (x, y, subjects), (x_test, y_test, test_subjects) = splits
    return from_arrays(
        x,
        y,
        x_test=x_test,
        y_test=y_test,
        class_names=_NAMES,
        name="uci_har",
        **{"client_ids": subjects, "test_client_ids": test_subjects, **clients},
    )


def _of_archive(path: pathlib.Path) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Returns (x float32[rows, 128, 9], labels, subjects) of training and test people."""
    found = read_npz(path, _MOST_BYTES)
    wanted = ("x_int16", "scale", "y", "subject", "official_test_subjects")
    if missing := [name for name in wanted if name not in found]:
        raise refused(path, f"holds no array {missing[0]!r}: get it again")
    x, scale, y, subjects, tested = (found[name] for name in wanted)
    rows = sum(_ROWS.values())
    if x.shape != (rows, len(_CHANNELS), _STEPS) or y.shape != (rows,) or subjects.shape != (rows,):
        raise refused(
            path,
            f"holds x_int16 {list(x.shape)}, y {list(y.shape)} and subject {list(subjects.shape)}, "
            f"not {rows} windows of {len(_CHANNELS)} channels and {_STEPS} steps",
        )
    _check(path, y, 0, len(_NAMES) - 1)
    _check(path, subjects, 1, _SUBJECTS)
    x = np.ascontiguousarray(x.transpose(0, 2, 1)) * np.float32(scale)
    is_test = np.isin(subjects, tested)
    return [(x[rows], y[rows], subjects[rows].astype(np.int32)) for rows in (~is_test, is_test)]


def _of_folder(folder: pathlib.Path, split: str, features: str, root: pathlib.Path):
    """Returns (x, labels, subjects) of one split of the official archive."""
    names = {"y": f"{split}/y_{split}.txt", "subject": f"{split}/subject_{split}.txt"}
    if features == "statistics":
        names["x"] = f"{split}/X_{split}.txt"
    else:
        signals = f"{split}/Inertial Signals"
        names |= {channel: f"{signals}/{channel}_{split}.txt" for channel in _CHANNELS}
    if missing := [name for name in names.values() if not (folder / name).is_file()]:
        wanted = [f"uci_har/{_FOLDER}/{name}" for name in missing]
        raise FileNotFoundError(missing_files("uci_har", wanted, root))
    rows = _ROWS[split]
    paths = {name: folder / file for name, file in names.items()}
    y, subjects = (_table(paths.pop(name), rows, 1)[:, 0] for name in ("y", "subject"))
    _check(folder / names["y"], y, 1, len(_NAMES))
    _check(folder / names["subject"], subjects, 1, _SUBJECTS)
    width = _STATISTICS if features == "statistics" else _STEPS
    tables = [_table(path, rows, width) for path in paths.values()]
    x = tables[0] if features == "statistics" else np.stack(tables, -1)
    return x, y.astype(np.int32) - 1, subjects.astype(np.int32)


def _table(path: pathlib.Path, rows: int, columns: int) -> np.ndarray:
    """Returns float32[rows, columns] of a text of numbers."""
    with whole(path), open_bounded(path, _MOST_BYTES) as file:
        values = np.array(file.read().split()).astype(np.float32)
    if values.size != rows * columns:
        raise refused(path, f"holds {values.size} numbers, not {rows} rows of {columns}")
    return values.reshape(rows, columns)


def _check(path: pathlib.Path, values: np.ndarray, least: int, most: int) -> None:
    if values.min() < least or values.max() > most or np.any(values != np.rint(values)):
        raise refused(path, f"holds numbers that are not {least} to {most}: get it again")
