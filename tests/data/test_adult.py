"""Adult: rows, features and labels as in UCI's files."""

import csv

import numpy as np
import pytest

from fljax import data

NUMBERS = {"age": 0, "education_num": 4, "capital_gain": 10, "capital_loss": 11, "hours": 12}
KINDS = {1: 8, 5: 7, 6: 14, 7: 6, 8: 5, 9: 1, 13: 41}


@pytest.fixture(scope="module")
def folder(data_dir):
    if not (data_dir / "adult").is_dir():
        pytest.skip("the files of adult are not here")
    return data_dir


def rows_of(folder, name):
    with (folder / "adult" / name).open() as file:
        return [row for row in csv.reader(file, skipinitialspace=True) if len(row) == 15]


@pytest.fixture(scope="module")
def tables(folder):
    return np.array(rows_of(folder, "adult.data")), np.array(rows_of(folder, "adult.test"))


@pytest.fixture(scope="module")
def whole(folder):
    return data.adult(data_dir=folder, num_clients=10)


def test_rows_and_labels_are_those_of_the_files(whole, tables):
    for split, table, positive in zip((whole.train, whole.test), tables, (7841, 3846), strict=True):
        y = split.examples.arrays["y"]
        assert y.sum() == positive
        np.testing.assert_array_equal(y, [label.startswith(">50K") for label in table[:, 14]])


def test_numbers_are_standardized_by_the_training_people(whole, tables):
    x, x_test = (split.examples.arrays["x"] for split in (whole.train, whole.test))
    assert x.shape == (32561, 87) and x.dtype == np.float32
    for place, column in enumerate(NUMBERS.values()):
        numbers = tables[0][:, column].astype(float)
        expected = (numbers - numbers.mean()) / numbers.std()
        np.testing.assert_allclose(x[:, place], expected, atol=1e-4)
        of_test = (tables[1][:, column].astype(float) - numbers.mean()) / numbers.std()
        np.testing.assert_allclose(x_test[:, place], of_test, atol=1e-4)


def test_each_value_of_a_kind_has_a_feature(whole, tables):
    x, start = whole.train.examples.arrays["x"], len(NUMBERS)
    for column, width in KINDS.items():
        values, features = tables[0][:, column], x[:, start : start + width]
        assert set(np.unique(features)) == {0, 1}
        patterns = {}
        for value, pattern in zip(values, map(tuple, features.tolist()), strict=True):
            assert patterns.setdefault(value, pattern) == pattern, value
        assert len(set(patterns.values())) == len(patterns)  # different values look different
        assert "?" not in patterns or not any(patterns["?"])
        start += width
    assert start == 87


def test_clients_by_a_column(folder, tables):
    dataset = data.adult(data_dir=folder, by="doctorate")
    assert dataset.client_ids.tolist() == ["doctorate", "no doctorate"]
    for split, table in zip((dataset.train, dataset.test), tables, strict=True):
        is_doctor = table[:, 3] == "Doctorate"
        np.testing.assert_array_equal(split.partition.rows(0), np.flatnonzero(is_doctor))
    with pytest.raises(ValueError, match="by = 'race' says .* set partition = 'natural'"):
        data.load("adult", data_dir=folder, by="race", partition="iid", num_clients=3)


def test_incomplete_people_and_columns_may_be_left_out(folder):
    dataset = data.adult(
        data_dir=folder, num_clients=5, missing="drop", leave_out=("sex", "race"),
        own_test_fraction=0.2,
    )  # fmt: skip
    assert dataset.train.num_rows + dataset.test.num_rows == 45222
    assert dataset.spec["x"].shape == (81,)
    for options in ({"leave_out": ("gender",)}, {"by": "age"}, {"missing": "mean"}):
        with pytest.raises(ValueError, match=next(iter(options))):
            data.adult(data_dir=folder, num_clients=5, **options)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[: len(text) // 2], "adult.data"),
        (lambda text: text.replace("Female", "F", 1), "holds 'F' in the column sex"),
        (lambda text: text.replace("39, State-gov", "old, State-gov", 1), "else than numbers"),
    ],
)
def test_files_that_are_not_uci_s_are_refused(folder, tmp_path, change, message):
    (tmp_path / "adult").mkdir()
    for name in ("adult.data", "adult.test"):
        text = (folder / "adult" / name).read_text()
        (tmp_path / "adult" / name).write_text(change(text) if name == "adult.data" else text)
    with pytest.raises(ValueError, match=message):
        data.adult(data_dir=tmp_path, num_clients=5)


def test_missing_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="adult/adult.data"):
        data.adult(data_dir=tmp_path, num_clients=5)
