"""LIBSVM's format and its data sets: every row as scikit-learn reads it, errors by line."""

import gzip
import io
from unittest import mock

import numpy as np
import pytest

from fljax import data
from fljax.data.readers import libsvm

FEATURES = 7


def text_of(x, y):
    """Returns the text of rows, with comments, empty lines and carriage returns in between."""
    lines = ["# made by hand\r", ""]
    for row, label in zip(x, y, strict=True):
        places = np.flatnonzero(row)
        pairs = " ".join(f"{place + 1}:{row[place]:.17g}" for place in places)
        lines += [f"{label:g} {pairs} # a comment", ""]
    return "\n".join(lines)


@pytest.mark.parametrize("chunk", [16, 1000, 1 << 20])
@pytest.mark.parametrize("packed", [False, True])
def test_rows_are_those_of_scikit_learn_in_blocks_of_any_size(tmp_path, chunk, packed):
    load = pytest.importorskip("sklearn.datasets").load_svmlight_file
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, FEATURES)) * (rng.random((50, FEATURES)) < 0.4)
    x[3] = 0
    y = rng.integers(-2, 3, 50)
    text = text_of(x, y).encode()
    path = tmp_path / ("rows.gz" if packed else "rows")
    path.write_bytes(gzip.compress(text) if packed else text)
    with mock.patch.object(libsvm, "_CHUNK", chunk):
        blocks = list(libsvm.libsvm_blocks(path, FEATURES, np.float64))
        found, labels = libsvm.read_libsvm(path, FEATURES, np.float64)
        most = libsvm.largest_place(path)
    expected, expected_labels = load(io.BytesIO(text), n_features=FEATURES)
    np.testing.assert_array_equal(found, expected.toarray())
    np.testing.assert_array_equal(labels, expected_labels)
    assert (len(blocks) > 10) == (chunk == 16)
    assert most == np.flatnonzero(x.any(0)).max() + 1


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("1 2:x", "line 3 holds something else than numbers"),
        ("1 2", "line 3 is not a label and pairs"),
        ("1:2 3", "line 3 is not a label and pairs"),
        ("1 2:3:4 5", "line 3 is not a label and pairs"),
        ("1 0:3", "line 3 has the place 0, and places are 1 to 7"),
        ("1 8:3", "line 3 has the place 8, and places are 1 to 7"),
        ("1 1.5:3", "line 3 has the place 1.5"),
        ("1 3:1 3:2", "line 3 has places that do not rise"),
        ("1 3:nan", "line 3 holds a value that is not finite"),
        ("1 3:0.5", "line 3 has the value 0.5, which uint8 cannot hold"),
        ("1 3:256", "line 3 has the value 256, which uint8 cannot hold"),
    ],
)
def test_what_is_no_row_is_named_by_its_line(tmp_path, line, why):
    path = tmp_path / "rows"
    path.write_text(f"1 1:2\n\n{line}\n0 2:1\n")
    with pytest.raises(ValueError, match=f"rows is no LIBSVM file: {why}"):
        libsvm.read_libsvm(path, FEATURES, np.uint8)


def test_a_file_of_one_s_own_has_classes_or_numbers(tmp_path):
    (tmp_path / "train").write_text("-1 1:1\n1 2:2\n3 3:0.5\n" * 4)
    (tmp_path / "test").write_text("3 4:1\n")
    own = {"data_dir": tmp_path, "path": "train", "num_clients": 2}
    dataset = data.load("libsvm", **own, test_path=str(tmp_path / "test"))
    assert dataset.class_names == ("-1", "1", "3")
    assert dataset.train.examples.arrays["x"].shape == (12, 4)
    assert dataset.test.examples.arrays["y"].tolist() == [2]
    numbers = data.load("libsvm", **own, targets="numbers", num_features=9)
    assert numbers.kind == "targets" and numbers.train.examples.arrays["x"].shape == (12, 9)
    assert numbers.train.examples.arrays["y"][:3].tolist() == [-1, 1, 3]
    (tmp_path / "train").write_text("0.5 1:1\n")
    with pytest.raises(ValueError, match="label 0.5, which is no class: set targets = 'numbers'"):
        data.load("libsvm", **own)
    (tmp_path / "train").write_text("# nothing\n")
    with pytest.raises(ValueError, match="holds no rows"):
        data.load("libsvm", **own, num_features=2)
    with pytest.raises(FileNotFoundError, match="path = 'other': there is no file"):
        data.load("libsvm", data_dir=tmp_path, path="other")


def require(data_dir, name):
    if not (data_dir / "libsvm" / name).is_file():
        pytest.skip(f"FLJAX_DATA_DIR has no libsvm/{name}")


def test_mushrooms_are_divided_by_class_whatever_the_seed(data_dir):
    require(data_dir, "mushrooms")
    load = pytest.importorskip("sklearn.datasets").load_svmlight_file
    dataset = data.mushrooms(data_dir=data_dir, num_clients=12)
    train, test = (dict(split.examples.arrays) for split in (dataset.train, dataset.test))
    x, y = load(str(data_dir / "libsvm" / "mushrooms"))
    for part in (train, test):  # each class has its share
        assert abs(part["y"].mean() - 3916 / 8124) < 1e-3
    assert len(test["y"]) == 1625
    rows = np.concatenate([np.c_[part["x"], part["y"]] for part in (train, test)])
    expected = np.c_[x.toarray(), y == 1]
    sums = np.arange(1, rows.shape[1] + 1) ** 2
    np.testing.assert_array_equal(np.sort(rows @ sums), np.sort(expected @ sums))
    again = data.mushrooms(data_dir=data_dir, num_clients=12, seed=1).test.examples.arrays
    np.testing.assert_array_equal(again["x"], test["x"])
    seen = dataset.preprocess({"x": train["x"][:2]})["x"]
    assert seen.dtype == np.float32 and seen.shape == (2, 112)


def test_a9a_has_its_official_rows_and_w8a_too_where_they_are_there(data_dir, tmp_path):
    require(data_dir, "a9a")
    dataset = data.a9a(data_dir=data_dir, num_clients=80)
    train, test = (split.examples.arrays for split in (dataset.train, dataset.test))
    assert (train["y"].sum(), test["y"].sum()) == (7841, 3846)
    assert train["x"].shape == (32561, 123) and test["x"].shape == (16281, 123)
    (tmp_path / "libsvm").mkdir()
    (tmp_path / "libsvm" / "w8a").write_text("1 1:1\n")
    with pytest.raises(FileNotFoundError, match=r"libsvm/w8a.t\n"):
        data.w8a(data_dir=tmp_path, num_clients=2, test_fraction=0)
    with pytest.raises(ValueError, match="has 1 rows, not 49749"):
        data.w8a(data_dir=tmp_path, num_clients=2)
    with pytest.raises(ValueError, match="test_fraction = 2.0"):
        data.mushrooms(data_dir=data_dir, num_clients=2, test_fraction=2.0)
