"""Data sets of other libraries, by small fakes that can do what those can do.

The fakes have what `datasets.Dataset`, `torch.utils.data.Dataset`, `biosilo.Partition` and h5py's
files have; fljax imports none of these packages but h5py.
"""

import collections
import sys
import types

import numpy as np
import pytest
from federated_formats import write_tff

from fljax import data


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FLJAX_CACHE_DIR", str(tmp_path / "cache"))


class FakeDataset:
    """A `datasets.Dataset`: columns, rows by slices, and classes with names."""

    def __init__(self, columns, names=None):
        self.columns, self.column_names = columns, list(columns)
        self.features = {"label": types.SimpleNamespace(names=names)} if names else {}

    def __len__(self):
        return len(next(iter(self.columns.values())))

    def __getitem__(self, rows):
        return {name: values[rows] for name, values in self.columns.items()}


def fake(rows, seed=0, names=("no", "yes")):
    rng = np.random.default_rng(seed)
    columns = {
        "user": [f"u{row % 2}" for row in range(rows)],
        "image": list(rng.integers(0, 256, (rows, 4, 4), np.uint8)),
        "label": [row % 2 for row in range(rows)],
    }
    return FakeDataset(columns, names)


def test_hugging_face():
    train, test = fake(5), fake(4, 1)
    dataset = data.from_huggingface(
        {"train": train, "validation": fake(2, 2), "test": test}, client="user"
    )
    assert dataset.class_names == ("no", "yes") and dataset.client_ids.tolist() == ["u0", "u1"]
    assert dataset.train.partition.sizes.tolist() == [3, 2] and dataset.val.num_rows == 2
    x = dataset.train.examples.take(dataset.train.partition.rows(1))["x"]
    assert np.array_equal(x[..., 0], np.stack(train.columns["image"][1::2]))
    assert x.shape == (2, 4, 4, 1) and dataset.preprocess is not None

    partitions = [fake(3), fake(1, 1)]  # flwr-datasets' load_partition(0), load_partition(1)
    federated = data.from_huggingface(partitions, test=test, features="image")
    assert federated.client_ids.tolist() == [0, 1] and federated.test.partition is None
    assert federated.train.partition.sizes.tolist() == [3, 1]
    with pytest.raises(ValueError, match="which of its features is x .*user, image, label"):
        data.from_huggingface(train, num_clients=2)
    with pytest.raises(ValueError, match="no column 'person', but these: user, image, label"):
        data.from_huggingface(train, client="person")
    with pytest.raises(ValueError, match="a Dataset of Hugging Face"):
        data.from_huggingface([[1, 2]])
    with pytest.raises(ValueError, match="has the splits fit, eval: say which is for training"):
        data.from_huggingface({"fit": train, "eval": test})


def test_hugging_face_by_name(tmp_path, monkeypatch):
    saved = {str(tmp_path): {"train": fake(4)}, "hub/name": fake(3)}
    package = types.SimpleNamespace(load_from_disk=saved.get, load_dataset=saved.get)
    monkeypatch.setitem(sys.modules, "datasets", package)
    for path, rows in ((str(tmp_path), 4), ("hub/name", 3)):
        assert data.load("huggingface", path=path, client="user").train.num_rows == rows
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ImportError, match=r"pip install 'fljax\[huggingface\]'"):
        data.load("huggingface", path="hub/name")


def test_torch():
    rng = np.random.default_rng(0)
    images = rng.normal(size=(6, 3, 5, 4)).astype(np.float32)
    pairs = [(image, row % 2) for row, image in enumerate(images)]
    with pytest.raises(ValueError, match=r"\[3, 5, 4\].* say channels_first=True"):
        data.from_torch(pairs, num_clients=2)
    dataset = data.from_torch(pairs, client_ids=list("aabbbb"), channels_first=True)
    x = dataset.train.examples.take(dataset.train.rows())["x"]
    assert np.array_equal(x, np.moveaxis(images, 1, -1)) and x.dtype == np.float32

    subsets = [FakeSubset(pairs, [0, 2]), FakeSubset(pairs, [5])]
    federated = data.from_torch(subsets, test=pairs[:2], channels_first=False)
    assert federated.train.partition.sizes.tolist() == [2, 1]
    assert federated.test.partition is None and federated.held_out is None
    with pytest.raises(ValueError, match="its test rows are no client's"):
        data.from_torch(subsets, test=pairs, channels_first=True, own_test_fraction=0.5)
    assert federated.train.examples.take(np.arange(3))["y"].tolist() == [0, 0, 1]
    dicts = [{"tokens": "to be", "y": 0.5}, {"tokens": "or not", "y": 1.5}]
    texts = data.from_torch(dicts, target="y", text="words", sequence_length=3, client_ids=[1, 2])
    assert texts.kind == "targets" and texts.train.examples.take([0])["x"].shape == (1, 3)
    for wrong, said in [
        ([(1, 2, 3)], r"an item must be \(x, y\) or a dict, not tuple of 3"),
        ([(np.ones(2), 0), (np.ones(3), 1)], r"unlike shapes, such as \[2\], \[3\]"),
        (iter(pairs), "a map-style data set"),
    ]:
        with pytest.raises(ValueError, match=said):
            data.from_torch(wrong, num_clients=1)
    with pytest.raises(ValueError, match="one id for each of the 6 rows"):
        data.from_torch(pairs, client_ids=[1, 2], channels_first=True)


class FakeSubset:
    """A `torch.utils.data.Subset`."""

    def __init__(self, dataset, rows):
        self.dataset, self.rows = dataset, rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, row):
        return self.dataset[self.rows[row]]


def test_biosilo():
    inputs = collections.namedtuple("inputs", ["scan", "age"])

    def client(number, split):
        rows = number + (2 if split == "train" else 1)
        x = inputs(np.full((rows, 3), number, np.float32), np.ones(rows))
        return x, np.arange(rows), np.array([f"{split} {row // 2}" for row in range(rows)])

    partition = types.SimpleNamespace(client_ids=["east", "west"], client=client, dataset="scans")
    dataset = data.from_biosilo(partition, features="scan")
    assert dataset.client_ids.tolist() == ["east", "west"] and dataset.name == "scans"
    assert dataset.train.partition.sizes.tolist() == [2, 3]
    assert dataset.test.partition.sizes.tolist() == [1, 2]
    assert dataset.train.examples.take([2])["x"].tolist() == [[1, 1, 1]]
    assert dataset.subjects.tolist() == [0, 0, 1, 1, 2]
    with pytest.raises(ValueError, match="which of its features is x .*scan, age"):
        data.from_biosilo(partition)


def test_hdf5_files_are_those_databases(tmp_path, monkeypatch):
    snippets = {"train": {"ann": ["to be", "or"], "bob": ["not"]}, "test": {"ann": ["be"]}}
    files = {}
    for split, clients in snippets.items():
        path = tmp_path / f"{split}.h5"
        path.touch()
        arrays = {c: {"snippets": np.array([t.encode() for t in some], object)[()]}
                  for c, some in clients.items()}  # fmt: skip
        files[path] = {"examples": arrays}
    monkeypatch.setitem(
        sys.modules, "h5py", types.SimpleNamespace(File=lambda p: FakeFile(files[p]))
    )
    how = {"text": "characters", "sequence_length": 5}
    paths = [str(path) for path in files]
    dataset = data.load("tff", path=paths[0], test_path=paths[1], **how)
    rows = {s: {c: [{"snippets": t} for t in some] for c, some in clients.items()}
            for s, clients in snippets.items()}  # fmt: skip
    expected = data.load("tff", path=str(write_tff(tmp_path / "a.sqlite", rows)), **how)
    for split in ("train", "test"):
        found, wanted = (getattr(d, split) for d in (dataset, expected))
        assert np.array_equal(
            found.examples.take(found.rows())["x"], wanted.examples.take(wanted.rows())["x"]
        )
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ImportError, match=r"pip install 'fljax\[hdf5\]'"):
        data.load("tff", path=paths[1], **how)


class FakeFile(dict):
    """An `h5py.File`."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


def test_tensorflow_datasets(data_dir):
    dataset = data.load("tfds:tiny_shakespeare", text="characters", num_clients=10,
                        data_dir=data_dir)  # fmt: skip
    assert (dataset.kind, dataset.num_clients) == ("next_token", 10)
    # 1,003,854 characters, begin and end, in chunks of 81
    assert dataset.train.num_rows == -(-1_003_856 // 81)
    assert dataset.val.num_rows == dataset.test.num_rows == -(-55_772 // 81)
    with pytest.raises(FileNotFoundError, match=r"mnist is not prepared .* needs TensorFlow"):
        data.load("tfds:mnist", num_clients=2, data_dir=data_dir)
    with pytest.raises(ValueError, match="no feature 'user', but these: text"):
        data.load("tfds:tiny_shakespeare", client="user", text="characters", data_dir=data_dir)
