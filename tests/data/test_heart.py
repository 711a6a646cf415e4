"""Heart disease in four hospitals: FLamby's rows, split and features."""

import numpy as np
import pytest

from fljax import data

HOSPITALS = ("cleveland", "hungarian", "switzerland", "va")


@pytest.fixture
def folder(data_dir):
    if not (data_dir / "heart_disease").is_dir():
        pytest.skip("the files of heart_disease are not here")
    return data_dir


def read(folder, hospital):
    """Returns (float64[rows, 10] columns 0 to 9, bool[rows] whether ill) of complete rows."""
    path = folder / "heart_disease" / f"processed.{hospital}.data"
    rows = np.array([line.split(",") for line in path.read_text().split()])
    used = np.delete(rows, [10, 11, 12], 1)
    used = used[(used != "?").all(1)].astype(float)
    return used[:, :10], used[:, 10] > 0


def test_hospitals_are_clients_with_flamby_s_rows(folder):
    dataset = data.heart_disease(data_dir=folder)
    assert dataset.client_ids.tolist() == list(HOSPITALS)
    assert dataset.train.partition.sizes.tolist() == [199, 172, 30, 85]
    assert dataset.test.partition.sizes.tolist() == [104, 89, 16, 45]
    assert dataset.num_classes == 2
    iid = data.load("heart_disease", partition="iid", num_clients=10, data_dir=folder)
    assert iid.num_clients == 10


@pytest.mark.parametrize("number", range(4))
def test_rows_are_split_and_scaled_as_flamby_does(folder, number):
    selection = pytest.importorskip("sklearn.model_selection")
    x, ill = read(folder, HOSPITALS[number])
    stratify = ill if min(ill.sum(), (~ill).sum()) > 2 else None
    train, test = selection.train_test_split(
        np.arange(len(x)), test_size=1 - 0.66, train_size=0.66, random_state=43, stratify=stratify
    )
    kinds = [x[:, 2] == 2, x[:, 2] == 3, x[:, 2] == 4, x[:, 6] == 1, x[:, 6] == 2]
    features = np.column_stack([x[:, [0, 1, 3, 4, 5, 7, 8, 9]], *kinds])
    deviation = features[train].std(0, ddof=1)
    features = (features - features[train].mean(0)) / np.where(deviation > 0, deviation, 1)
    dataset = data.heart_disease(data_dir=folder)
    for split, rows in ((dataset.train, np.sort(train)), (dataset.test, np.sort(test))):
        begin, end = split.partition.offsets[number : number + 2]
        own = split.examples.take(split.rows()[begin:end])
        np.testing.assert_allclose(own["x"], features[rows], atol=1e-5)
        assert own["y"].tolist() == ill[rows].astype(int).tolist()


def test_public_scales_depend_on_no_patient(folder):
    dataset = data.heart_disease(data_dir=folder, scaling="public")
    x, _ = read(folder, "cleveland")
    ages = dataset.train.examples.arrays["x"][:199, 0]
    assert set(ages) <= set(((x[:, 0] - 55) / 10).astype(np.float32))
    assert np.abs(dataset.train.examples.arrays["x"]).max() < 10


def test_patients_have_a_sex_and_a_band_of_ages(folder):
    dataset = data.heart_disease(data_dir=folder)
    assert dataset.row_groups == {"age": ("0-49", "50-59", "60+"), "sex": ("female", "male")}
    columns = np.concatenate([read(folder, hospital)[0] for hospital in HOSPITALS])
    bands = np.digitize(columns[:, 0], [50, 60])
    for split in (dataset.train, dataset.test):
        groups = split.examples.arrays["groups"]
        # public features, of which the order within a hospital is that of the file
        x = data.heart_disease(data_dir=folder, scaling="public")
        x = getattr(x, "train" if split is dataset.train else "test").examples.arrays["x"]
        np.testing.assert_array_equal(groups["age"], np.digitize(55 + 10 * x[:, 0], [49.5, 59.5]))
        np.testing.assert_array_equal(groups["sex"], x[:, 1])
    counted = sum(
        np.bincount(split.examples.arrays["groups"]["age"], minlength=3)
        for split in (dataset.train, dataset.test)
    )
    assert counted.tolist() == np.bincount(bands).tolist() and counted.min() > 0.25 * 740


def test_files_that_are_missing_or_broken_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="processed.cleveland.data"):
        data.heart_disease(data_dir=tmp_path)
    (tmp_path / "heart_disease").mkdir()
    for hospital in HOSPITALS:
        (tmp_path / "heart_disease" / f"processed.{hospital}.data").write_text("1,2,3\n")
    with pytest.raises(ValueError, match="cleveland.data has 3 values in row 1, not 14"):
        data.heart_disease(data_dir=tmp_path)
    for text, why in (
        ("1," * 13 + "0\n", "1 complete rows, not 303"),
        ("a," * 13 + "0\n", "numbers"),
    ):
        (tmp_path / "heart_disease" / "processed.cleveland.data").write_text(text)
        with pytest.raises(ValueError, match=why):
            data.heart_disease(data_dir=tmp_path)
    with pytest.raises(ValueError, match="scaling = 'none'"):
        data.heart_disease(scaling="none")
