"""Sources by name; the real files where FLJAX_DATA_DIR has them."""

import subprocess
import sys
from pathlib import Path

import consoles
import numpy as np
import pytest

from fljax import data
from fljax.data.sources.digits import _digits_of_scikit_learn
from fljax.data.sources.images import first_of_groups


def require(data_dir, *paths):
    missing = [path for path in paths if not (data_dir / path).exists()]
    if missing:
        pytest.skip(f"FLJAX_DATA_DIR has no {', '.join(missing)}")


def test_digits_are_split_by_class_and_not_by_the_partition_s_seed():
    pytest.importorskip("sklearn")
    one, two = (data.load("digits", num_clients=10, seed=seed) for seed in (0, 1))
    x, y = one.train.examples.arrays["x"], one.train.examples.arrays["y"]
    assert x.dtype == np.float32 and x.shape[1:] == (64,)
    assert x.min() == 0 and x.max() == 1 and np.array_equal(x * 16, np.round(x * 16))
    assert one.train.num_rows + one.test.num_rows == 1797
    share = np.bincount(one.test.examples.arrays["y"]) / (
        np.bincount(one.test.examples.arrays["y"]) + np.bincount(y)
    )
    assert np.abs(share - 0.2).max() < 0.01
    assert np.array_equal(x, two.train.examples.arrays["x"])
    assert not np.array_equal(one.train.partition.index, two.train.partition.index)
    other = data.digits(num_clients=10, split_seed=1)
    assert not np.array_equal(x, other.train.examples.arrays["x"])


def test_load_passes_partition_options_on():
    pytest.importorskip("sklearn")
    dataset = data.load(
        "digits", partition="dirichlet", num_clients=7, alpha=0.2, min_partition_size=9,
        val_fraction=0.2,
    )  # fmt: skip
    sizes = dataset.train.partition.sizes + dataset.val.partition.sizes
    assert len(sizes) == 7 and sizes.min() >= 9
    assert abs(dataset.val.num_rows - 0.2 * sizes.sum()) <= 1


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("fashion-mnist", {}, "'fashion-mnist' is no name .* mean 'fashion_mnist'"),
        ("digits", {"num_client": 3}, "digits has no argument 'num_client' = 3.* 'num_clients'"),
        ("mnist", {"standardise": True}, "Did you mean 'standardize'"),
        ("digits", {"client_ids": np.zeros(3)}, "digits has no argument 'client_ids'"),
        ("synthetic", {"shards_per_client": 2}, "no argument 'shards_per_client' = 2"),
        ("digits(seed=1)", {}, "seed = 1 is set here, and"),
        ("digits(split_seed=2)", {"split_seed": 1}, "split_seed = 2 is set here, and"),
        ("digits", {}, "no clients of their own"),
        ("digits", {"partition": "natural"}, "'digits' has no natural clients"),
        ("digits", {"partition": "dirichlet"}, "needs num_clients"),
        ("csv", {}, r"csv needs path. It is csv\(path, .{1,200}, \.\.\.\)\.$"),
    ],
)
def test_wrong_requests_are_refused(name, options, message):
    pytest.importorskip("sklearn")
    with pytest.raises(ValueError, match=message):
        data.load(name, **options)


def test_fashion_mnist(data_dir):
    require(data_dir, "fashion_mnist")
    dataset = data.load("fashion_mnist", num_clients=10, data_dir=data_dir)
    x = dataset.train.examples.arrays["x"]
    assert x.shape == (60_000, 28, 28, 1) and dataset.test.num_rows == 10_000
    assert np.all(np.bincount(dataset.train.examples.arrays["y"]) == 6000)
    seen = np.asarray(dataset.preprocess(dataset.train.examples.take(np.arange(5000)))["x"])
    assert abs(seen.mean()) < 0.02 and abs(seen.std() - 1) < 0.02


def test_mnist_writers(data_dir):
    require(data_dir, "mnist", "qmnist_writers")
    dataset = data.load("mnist_writers", data_dir=data_dir)
    sizes = dataset.train.partition.sizes
    assert (len(sizes), sizes.min(), np.median(sizes), sizes.max()) == (539, 19, 116, 131)
    assert dataset.test.partition is None and dataset.test.num_rows == 10_000
    assert dataset.held_out.partition.num_clients == 297
    assert dataset.held_out.partition.num_rows == 10_000
    assert set(dataset.groups["hsf_series"].tolist()) == {0, 4}
    assert len(dataset.groups["hsf_series"]) == 539
    iid = data.load("mnist_writers", partition="iid", num_clients=10, data_dir=data_dir)
    assert iid.num_clients == 10 and not iid.groups
    assert iid.held_out.partition.num_clients == 297
    grouped = data.load("mnist_writers", data_dir=data_dir, writers_per_client=27, num_clients=20)
    assert grouped.train.partition.sizes.sum() == 60_000
    some = data.load("mnist_writers", data_dir=data_dir, num_clients=50)
    place = np.searchsorted(dataset.client_ids, some.client_ids)
    assert np.array_equal(some.groups["hsf_series"], dataset.groups["hsf_series"][place])
    assert np.array_equal(some.train.partition.sizes, sizes[place]) and some.num_clients == 50
    # 27 writers after one another are one client
    first = dataset.train.partition.offsets[::27]
    assert np.array_equal(grouped.train.partition.offsets, [*first, 60_000])
    assert np.array_equal(grouped.client_ids, dataset.client_ids[::27])
    assert np.array_equal(grouped.groups["hsf_series"], dataset.groups["hsf_series"][::27])


def test_writers_next_to_each_other_share_a_client():
    ids = np.array([9, 2, 5, 2, 7, 11])
    assert first_of_groups(ids, 1).tolist() == ids.tolist()
    assert first_of_groups(ids, 2).tolist() == [7, 2, 2, 2, 7, 11]
    with pytest.raises(ValueError, match="writers_per_client = 0 must be at least 1"):
        first_of_groups(ids, 0)


def test_cifar10(data_dir):
    require(data_dir, "cifar10_subset")
    dataset = data.load("cifar10", partition="iid", num_clients=10, data_dir=data_dir)
    images = dataset.train.examples.arrays["x"]
    assert images.shape[1:] == (32, 32, 3) and images.dtype == np.uint8
    counts = np.bincount(dataset.train.examples.arrays["y"])
    assert len(counts) == 10 and np.all(counts == counts[0])
    seen = np.asarray(dataset.preprocess(dataset.train.examples.take(np.arange(2000)))["x"])
    assert np.abs(seen.mean(axis=(0, 1, 2))).max() < 0.1


def test_shakespeare(data_dir):
    require(data_dir, "shakespeare_tff")
    dataset = data.load("shakespeare", data_dir=data_dir)
    assert dataset.num_clients == 715 == dataset.test.partition.num_clients
    assert dataset.test.partition.sizes.min() >= 1
    arrays = dataset.train.examples.arrays
    some = data.load("shakespeare", data_dir=data_dir, num_clients=20, seed=3)
    assert some.num_clients == some.test.partition.num_clients == len(set(some.client_ids)) == 20
    whole = dict(zip(dataset.client_ids, dataset.train.partition.sizes, strict=True))
    assert some.train.partition.sizes.tolist() == [
        whole[client_id] for client_id in some.client_ids
    ]
    # Within a chunk the labels are the inputs one place on; every snippet begins exactly once.
    assert np.array_equal(arrays["x"][:, 1:], arrays["y"][:, :-1])
    assert (arrays["x"] == 88).sum() == 16_068


def test_the_command_prints_and_draws(tmp_path, monkeypatch, capsys):
    pytest.importorskip("sklearn")
    pytest.importorskip("matplotlib")
    done = consoles.call(
        monkeypatch, capsys, "partition", "--partition=dirichlet(alpha=0.3)", "--partition=iid",
        "--num_clients=5", "--examples=2", "--check", f"--out={tmp_path / 'p.png'}",
        f"--html={tmp_path / 'p.html'}",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert done.out.count("effective classes") == 2 and (tmp_path / "p.png").exists()
    assert "Partition iid" in done.out and "digits: " in done.out
    page = (tmp_path / "p.html").read_text()
    assert page.count("<img") == 1 and "Examples" in page and "Checks" in page


def test_the_command_takes_the_data_of_a_configuration(tmp_path, monkeypatch, capsys):
    (tmp_path / "visits.csv").write_text("user,a,y\n" + "u1,1,0\nu2,2,1\n" * 6)
    (tmp_path / "visits.py").write_text(
        "from fljax.config import default_config\n"
        "def get_config():\n"
        "    config = default_config()\n"
        "    config.dataset = 'csv'\n"
        f"    config.dataset_options.path = '{tmp_path / 'visits.csv'}'\n"
        "    config.dataset_options.update({'client': 'user', 'label': 'y'})\n"
        "    config.clients_per_round, config.val_fraction = 2, 0.5\n"
        "    return config\n"
    )
    done = consoles.call(
        monkeypatch, capsys, "partition", f"--config={tmp_path / 'visits.py'}",
        "--partition=iid", "--num_clients=3",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert "csv: classification, 2 classes, 3 clients" in done.out and "val" in done.out


def test_heavy_packages_are_not_imported():
    code = (
        "import sys, fljax.data; "
        "print([m for m in ('sklearn', 'matplotlib', 'tensorflow_datasets', 'tensorflow') "
        "if m in sys.modules])"
    )
    root = str(Path(__file__).parents[2])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root)
    assert done.stdout.strip() == "[]", done.stderr


def test_digits_are_those_of_scikit_learn_without_importing_it():
    load_digits = pytest.importorskip("sklearn.datasets").load_digits
    code = (
        "import sys; from fljax.data.sources.digits import _digits_of_scikit_learn as load; "
        "load(); "
        "print('sklearn' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
    found = _digits_of_scikit_learn()
    for got, want in zip(found, load_digits(return_X_y=True), strict=True):
        np.testing.assert_array_equal(got, want)
