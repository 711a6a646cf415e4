"""Heart disease in four hospitals: Janosi et al. 1988, UCI Machine Learning Repository.

As FLamby makes clients of it (Ogier du Terrail et al. 2022, arXiv:2210.04620): of 13 columns the
three that are mostly missing are left out, then the rows in which anything else is missing. 303,
261, 46 and 130 patients remain. Labels are 0 for the healthy, 1 for all others.
"""

from __future__ import annotations

import pathlib

import numpy as np

from fljax.core.archives import read_bytes, refused
from fljax.core.data_files import find_file, missing_files, resolve_data_dir
from fljax.core.values import Field, checked
from fljax.data.arrays import from_arrays
from fljax.data.dataset import FederatedDataset

# Test rows of each hospital, a bit each in the order of its file: a third of them, drawn by
# scikit-learn's stratified train_test_split with random_state=43, as FLamby does.
_TEST_ROWS = {
    "cleveland": ("040480a020b3c59dc48a03b505c0481087c001ac9430180a847015a598491260f8e2001cebe4"),
    "hungarian": "1100847cb841d42c88700d510093869198d144134848122f693a0411802910ba30",
    "switzerland": "07863a8c80c0",
    "va": "464800245b65020eb85b04886003a74580",
}
_PATIENTS = {"cleveland": 303, "hungarian": 261, "switzerland": 46, "va": 130}
_COLUMNS = 14
_MISSING = (10, 11, 12)
# Columns of numbers; and those of kinds, with the kinds that have a feature each.
_NUMBERS = (0, 1, 3, 4, 5, 7, 8, 9)
_KINDS = {2: (2, 3, 4), 6: (1, 2)}
# (center, unit) of age, blood pressure, cholesterol, heart rate, and depression of the ST segment,
# round numbers that no patient decided on.
_PUBLIC = {0: (55, 10), 3: (130, 20), 4: (200, 100), 7: (140, 25), 9: (1, 1)}
_SCALING = Field("hospital", str, ("hospital", "public"))
_AGE, _SEX = 0, 1
# Where a band of ages begins, and its name: each has a quarter of the patients or more.
_BANDS = {"0-49": 0, "50-59": 50, "60+": 60}


def heart_disease(*, data_dir=None, scaling: str = "hospital", **clients) -> FederatedDataset:
    """Heart disease (UCI): 486 + 254 patients of four hospitals, x float32[13], 2 classes.

    The natural clients are the hospitals: cleveland, hungarian, switzerland, va. Training and test
    rows are FLamby's, 199 / 172 / 30 / 85 and 104 / 89 / 16 / 45. The features are age, sex, blood
    pressure, cholesterol, blood sugar, heart rate, angina in exercise, depression of the ST
    segment, and five 0 or 1 for kinds of chest pain (2, 3, 4) and of electrocardiograms (1, 2).
    Sex (female, male) and a band of ages (0-49, 50-59, 60+) are groups of rows as well.

    Args:
      data_dir: See `fljax.core.data_files.resolve_data_dir`.
      scaling: "hospital" gives each feature mean 0 and deviation 1 over the hospital's own training
        rows, as FLamby does; constant features are 0 in training rows. Such numbers depend on all
        patients, which privacy of single examples does not cover: "public" takes round numbers.
      **clients: As in `mnist`; the default partition is "natural".

    Raises:
      FileNotFoundError: If a file is missing.
      ValueError: If a file is not what was expected, or the partition is not possible.

    Example:
      >>> dataset = data.heart_disease()  # doctest: +SKIP
    """
    checked("scaling", scaling, _SCALING)
    root = resolve_data_dir(data_dir) / "heart_disease"
    names = {hospital: f"processed.{hospital}.data" for hospital in _TEST_ROWS}
    paths = {hospital: find_file(root, name) for hospital, name in names.items()}
    if not all(paths.values()):
        wanted = [f"heart_disease/{names[h]}" for h, path in paths.items() if path is None]
        raise FileNotFoundError(missing_files("heart_disease", wanted, root.parent))
    train, test = [], []
    for hospital, path in paths.items():
        x, y = _patients(path)
        if len(y) != _PATIENTS[hospital]:
            raise refused(
                path, f"has {len(y)} complete rows, not {_PATIENTS[hospital]}: download it again"
            )
        bits = np.frombuffer(bytes.fromhex(_TEST_ROWS[hospital]), np.uint8)
        is_test = np.unpackbits(bits, count=len(y)).astype(bool)
        columns = (_scaled(x, x[~is_test], scaling), y, np.full(len(y), hospital), *_groups(x))
        train.append([column[~is_test] for column in columns])
        test.append([column[is_test] for column in columns])
    (x, y, ids, sex, age), (x_test, y_test, test_ids, test_sex, test_age) = (
        map(np.concatenate, zip(*parts, strict=True)) for parts in (train, test)
    )
    return from_arrays(
        x.astype(np.float32),
        y,
        x_test=x_test.astype(np.float32),
        y_test=y_test,
        num_classes=2,
        name="heart_disease",
        row_groups={"sex": sex, "age": age},
        test_row_groups={"sex": test_sex, "age": test_age},
        **{"client_ids": ids, "test_client_ids": test_ids, **clients},
    )


def _patients(path: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
    """Returns (features float64[patients, 13], labels int64[patients]) of one hospital."""
    rows = [line.split(",") for line in read_bytes(path).decode("latin-1").split()]
    for number, row in enumerate(rows):
        if len(row) != _COLUMNS:
            raise refused(
                path,
                f"has {len(row)} values in row {number + 1}, not {_COLUMNS}: download it again",
            )
    kept = [column for column in range(_COLUMNS) if column not in _MISSING]
    whole = [row for row in rows if all(row[column] != "?" for column in kept)]
    try:
        values = {column: np.array([float(row[column]) for row in whole]) for column in kept}
    except ValueError as error:
        raise refused(path, f"holds something else than numbers ({error}).") from None
    features = [values[column] for column in _NUMBERS]
    features += [values[column] == kind for column, kinds in _KINDS.items() for kind in kinds]
    return np.stack(features, 1).astype(np.float64), (values[13] > 0).astype(np.int64)


def _groups(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the sex and the band of ages of each patient, as texts, of unscaled features."""
    sex = np.array(["female", "male"])[x[:, _SEX].astype(int)]
    band = np.searchsorted(list(_BANDS.values()), x[:, _AGE], side="right") - 1
    return sex, np.array(list(_BANDS))[band]


def _scaled(x: np.ndarray, train: np.ndarray, scaling: str) -> np.ndarray:
    if scaling == "public":
        center, unit = np.zeros(x.shape[1]), np.ones(x.shape[1])
        for column, (middle, width) in _PUBLIC.items():
            center[_NUMBERS.index(column)], unit[_NUMBERS.index(column)] = middle, width
        return (x - center) / unit
    deviation = train.std(0, ddof=1)
    return (x - train.mean(0)) / np.where(deviation > 0, deviation, 1)
