"""Reading files: IDX, archives, and what is said of files that are missing or broken."""

import gzip
import io
import sys
import tarfile
import types

import numpy as np
import pytest

from fljax.core.data_files import find_file, read_idx
from fljax.data import cifar10, fashion_mnist, load, mnist, resolve_data_dir

CODES = {"u1": 0x08, "i1": 0x09, ">i2": 0x0B, ">i4": 0x0C, ">f4": 0x0D, ">f8": 0x0E}


def idx_bytes(values, code):
    header = bytes([0, 0, CODES[code], values.ndim]) + np.array(values.shape, ">i4").tobytes()
    return header + values.astype(code).tobytes()


@pytest.fixture(autouse=True)
def no_tensorflow_datasets(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)


def write_mnist(folder, gzipped=True, rows=20, test_rows=10):
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    arrays = {}
    for prefix, n in (("train", rows), ("t10k", test_rows)):
        arrays[f"{prefix}-images-idx3-ubyte"] = rng.integers(0, 256, (n, 28, 28))
        arrays[f"{prefix}-labels-idx1-ubyte"] = np.arange(n) % 10
    for name, values in arrays.items():
        content = idx_bytes(values, "u1")
        path = folder / (name + ".gz" * gzipped)
        path.write_bytes(gzip.compress(content) if gzipped else content)
    return arrays


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx_files_of_every_type(code, suffix, tmp_path):
    values = np.arange(24).reshape(2, 3, 4) * 5
    content = idx_bytes(values, code)
    path = tmp_path / f"values{suffix}"
    path.write_bytes(gzip.compress(content) if suffix else content)
    read = read_idx(path)
    assert np.array_equal(read, values) and read.dtype.isnative
    assert find_file(tmp_path, "values") == path


@pytest.mark.parametrize("keep", [0, 3, 7, 20, -1])
def test_truncated_idx_files_are_refused(keep, tmp_path):
    path = tmp_path / "values"
    path.write_bytes(idx_bytes(np.ones((4, 5)), "u1")[:keep])
    with pytest.raises(ValueError, match="values .*download it again"):
        read_idx(path)


def test_truncated_gzip_and_other_files_are_refused(tmp_path):
    content = gzip.compress(idx_bytes(np.random.default_rng(0).integers(0, 255, (99, 9)), "u1"))
    for broken in (content[:100], b"<html>not found</html>", b""):
        path = tmp_path / "values.gz"
        path.write_bytes(broken)
        with pytest.raises(ValueError, match="download it again"):
            read_idx(path)


def test_data_dir_is_argument_then_environment_then_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("FLJAX_DATA_DIR", str(tmp_path / "env"))
    assert resolve_data_dir(tmp_path) == tmp_path
    assert resolve_data_dir() == tmp_path / "env"
    monkeypatch.delenv("FLJAX_DATA_DIR")
    assert resolve_data_dir().parts[-2:] == (".cache", "fljax")


@pytest.mark.parametrize("gzipped", [True, False])
def test_mnist_is_read_from_its_files(gzipped, tmp_path):
    arrays = write_mnist(tmp_path / "mnist", gzipped)
    dataset = mnist(data_dir=tmp_path, num_clients=4, standardize=False)
    x = dataset.train.examples.arrays["x"]
    assert x.dtype == np.uint8 and x.shape == (20, 28, 28, 1) and dataset.test.num_rows == 10
    assert np.array_equal(x[..., 0], arrays["train-images-idx3-ubyte"])
    seen = dataset.preprocess(dataset.train.examples.take(np.array([[3, 4]])))
    assert seen["x"].shape == (1, 2, 28, 28, 1) and seen["x"].dtype == np.float32
    np.testing.assert_allclose(seen["x"][0, 0], x[3] / 255, rtol=1e-6)


def test_standardized_pixels(tmp_path):
    write_mnist(tmp_path / "fashion_mnist")
    dataset = fashion_mnist(data_dir=tmp_path, num_clients=4)
    batch = dataset.train.examples.take(np.arange(20))
    expected = (batch["x"] / 255 - 0.2860) / 0.3530
    np.testing.assert_allclose(dataset.preprocess(batch)["x"], expected, rtol=1e-4, atol=1e-5)


def test_missing_files_are_named(tmp_path, monkeypatch):
    write_mnist(tmp_path / "mnist")
    (tmp_path / "mnist" / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(FileNotFoundError) as error:
        load("mnist", num_clients=2, data_dir=tmp_path)
    message = str(error.value)
    assert str(tmp_path / "mnist" / "t10k-labels-idx1-ubyte.gz") in message
    assert "train-images" not in message
    assert "FLJAX_DATA_DIR" in message and "pip install tensorflow-datasets" in message
    for name in ("mnist_writers", "shakespeare", "cifar10"):
        with pytest.raises(FileNotFoundError, match="FLJAX_DATA_DIR"):
            load(name, num_clients=2, data_dir=tmp_path)


def test_images_and_labels_must_belong_together(tmp_path):
    write_mnist(tmp_path / "mnist")
    path = tmp_path / "mnist" / "train-labels-idx1-ubyte.gz"
    path.write_bytes(gzip.compress(idx_bytes(np.zeros(7), "u1")))
    with pytest.raises(ValueError, match="do not belong together"):
        mnist(data_dir=tmp_path, num_clients=2)


def fake_tfds(calls, fails=None):
    def data_source(name, *, split, data_dir, download):
        calls.append((name, data_dir, download))
        if fails:
            raise fails
        record = {"image": np.full((28, 28, 1), 7, np.uint8), "label": np.int64(3)}
        return [[record] * n for n in (8, 4)]

    return types.SimpleNamespace(data_source=data_source)


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setattr("fljax.data.sources.images.is_online", lambda: False)


@pytest.mark.parametrize("online", [False, True])
def test_tensorflow_datasets_serve_where_files_are_missing(tmp_path, monkeypatch, online):
    calls = []
    monkeypatch.setattr("fljax.data.sources.images.is_online", lambda: online)
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", fake_tfds(calls))
    (tmp_path / "tfds").mkdir()
    dataset = mnist(data_dir=tmp_path, num_clients=2)
    assert calls == [("mnist", str(tmp_path / "tfds"), online)]
    assert dataset.train.num_rows == 8 and dataset.test.num_rows == 4
    assert dataset.train.examples.arrays["y"].tolist() == [3] * 8


def test_failing_tensorflow_datasets_are_quoted(tmp_path, monkeypatch):
    calls = []
    fake = fake_tfds(calls, RuntimeError("nothing prepared"))
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", fake)
    monkeypatch.setattr("fljax.data.readers.tfds._has_tensorflow", lambda: False)
    with pytest.raises(FileNotFoundError, match="nothing prepared\nNothing was downloaded"):
        mnist(data_dir=tmp_path, num_clients=2)
    with pytest.raises(FileNotFoundError, match="nothing prepared$"):
        mnist(data_dir=tmp_path, num_clients=2, download=True)
    assert [call[2] for call in calls] == [False, True]


def cifar10_files(rows=2):
    rng = np.random.default_rng(0)
    names = [f"data_batch_{i}.bin" for i in range(1, 6)] + ["test_batch.bin"]
    images = {name: rng.integers(0, 256, (rows, 32, 32, 3), np.uint8) for name in names}
    contents = {}
    for place, (name, x) in enumerate(images.items()):
        labels = np.full((rows, 1), place, np.uint8)
        planes = x.transpose(0, 3, 1, 2).reshape(rows, -1)
        contents[f"cifar-10-batches-bin/{name}"] = np.hstack([labels, planes]).tobytes()
    return np.stack(list(images.values())), contents


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("folder", ["", "cifar10"])
def test_official_cifar10_is_preferred_to_the_subset(packed, folder, tmp_path):
    images, contents = cifar10_files()
    root = tmp_path / folder
    (root / "cifar-10-batches-bin").mkdir(parents=True)
    if packed:
        with tarfile.open(root / "cifar-10-binary.tar.gz", "w:gz") as tar:
            for name, content in contents.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    else:
        for name, content in contents.items():
            (root / name).write_bytes(content)
    (tmp_path / "cifar10_subset").mkdir()
    (tmp_path / "cifar10_subset" / "cifar10_subset.npz").write_bytes(b"not read")
    dataset = cifar10(data_dir=tmp_path, num_clients=2)
    assert dataset.name == "cifar10"
    assert np.array_equal(dataset.train.examples.arrays["x"], images[:5].reshape(-1, 32, 32, 3))
    assert dataset.train.examples.arrays["y"].tolist() == np.repeat(range(5), 2).tolist()
    assert np.array_equal(dataset.test.examples.arrays["x"], images[5])


def test_broken_cifar10_files_are_refused(tmp_path):
    archive = tmp_path / "cifar-10-binary.tar.gz"
    archive.write_bytes(gzip.compress(b"no tar")[:20])
    with pytest.raises(ValueError, match="truncated or corrupt"):
        cifar10(data_dir=tmp_path, num_clients=2)
    archive.unlink()
    _, contents = cifar10_files()
    (tmp_path / "cifar-10-batches-bin").mkdir()
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content[:-1])
    with pytest.raises(ValueError, match="6145 bytes"):
        cifar10(data_dir=tmp_path, num_clients=2)
    (tmp_path / "cifar-10-batches-bin" / "data_batch_4.bin").unlink()
    with pytest.raises(FileNotFoundError, match="data_batch_4"):
        cifar10(data_dir=tmp_path, num_clients=2)


def test_broken_cifar10_subset_is_refused(tmp_path):
    (tmp_path / "cifar10_subset").mkdir()
    (tmp_path / "cifar10_subset" / "cifar10_subset.npz").write_bytes(b"PK\x03\x04broken")
    with pytest.raises(ValueError, match="truncated or corrupt"):
        cifar10(data_dir=tmp_path, num_clients=2)
