"""Reads image sources: MNIST, Fashion-MNIST, MNIST by writer, CIFAR-10.

Images stay uint8 in memory; `preprocess` scales them inside the compiled program, to float32 in
[0, 1], or by default to zero mean and unit variance (of the training images, per channel).
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence

import numpy as np

from fljax.core.archives import read_bytes, read_members, read_npz, refused
from fljax.core.data_files import find_file, missing_files, read_idx, resolve_data_dir
from fljax.data.arrays import from_arrays
from fljax.data.dataset import FederatedDataset
from fljax.data.image_scaling import image_scaling
from fljax.data.partitions.partition_arguments import check_count
from fljax.data.readers.tfds import is_online, load_tfds

Arrays = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]

# Channel means and standard deviations of the training images, in units of [0, 1].
_MNIST_MOMENTS = ((0.1307,), (0.3081,))
_FASHION_MNIST_MOMENTS = ((0.2860,), (0.3530,))
_CIFAR10_MOMENTS = ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))

_IDX_NAMES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
_WRITER_NAMES = ("qmnist-train-labels-idx2-int", "qmnist-test-labels-idx2-int")
_CIFAR10_BINARY = "cifar-10-batches-bin"
_CIFAR10_ARCHIVE = "cifar-10-binary.tar.gz"
_CIFAR10_SUBSET = "cifar10_subset/cifar10_subset.npz"
_CIFAR_MOST = 256 << 20  # all records are 185 MB


def mnist(
    *, data_dir=None, standardize: bool = True, download: bool | None = None, **clients
) -> FederatedDataset:
    """MNIST (LeCun et al., 1998): 60,000 + 10,000 digits, x uint8[28, 28, 1], 10 classes.

    Reads the four original IDX files, gzipped or not, in `mnist/` of the data directory; where they
    are missing, what tensorflow-datasets has prepared.

    Args:
      data_dir: See `fljax.core.data_files.resolve_data_dir`.
      standardize: Zero mean and unit variance; else [0, 1].
      download: Whether tensorflow-datasets may fetch what is missing; None lets it where the
        machine is online, since without a network its attempts take minutes.
      **clients: partition, num_clients, seed, val_fraction and the partition's options, as in
        `from_arrays`.

    Raises:
      FileNotFoundError: If the data cannot be had; says which files to put where.
      ValueError: If a file is truncated or corrupt, or the partition is not possible.

    Example:
      >>> dataset = data.mnist(partition='iid', num_clients=100)  # doctest: +SKIP
    """
    arrays = _idx_arrays("mnist", data_dir, download)
    return _image_dataset("mnist", arrays, _MNIST_MOMENTS, standardize, clients)


def fashion_mnist(
    *, data_dir=None, standardize: bool = True, download: bool | None = None, **clients
) -> FederatedDataset:
    """Fashion-MNIST (Xiao et al., arXiv:1708.07747): 60,000 + 10,000 images, 10 classes.

    Reads `fashion_mnist/` of the data directory; everything else is as in `mnist`.

    Example:
      >>> dataset = data.fashion_mnist(partition='iid', num_clients=100)  # doctest: +SKIP
    """
    arrays = _idx_arrays("fashion_mnist", data_dir, download)
    return _image_dataset("fashion_mnist", arrays, _FASHION_MNIST_MOMENTS, standardize, clients)


def mnist_writers(
    *,
    data_dir=None,
    standardize: bool = True,
    download: bool | None = None,
    writers_per_client: int = 1,
    **clients,
) -> FederatedDataset:
    """MNIST divided among the people who wrote it, by the labels of QMNIST.

    Yadav and Bottou (arXiv:1905.10498) found each image's NIST writer. 539 writers own the training
    images (19 to 131 each); the test images are by 297 others: they are the global test set, and
    the `held_out` clients as well. Needs the files of `mnist` and the label files
    `qmnist_writers/qmnist-{train,test}-labels-idx2-int.gz`. The group `hsf_series` is the part of
    the NIST collection a writer belongs to: 0 (Census Bureau employees) or 4 (students).

    Args:
      data_dir: See `fljax.core.data_files.resolve_data_dir`.
      standardize: Zero mean and unit variance; else [0, 1].
      download: As in `mnist`; the label files are not fetched.
      writers_per_client: Writers, next to each other by number, whose images make one natural
        client; 27 make 20 clients. The last client may have fewer. A client of several has the
        number, and the series, of its first writer.
      **clients: As in `mnist`; the default partition is "natural".

    Raises:
      FileNotFoundError: If a file is missing.
      ValueError: If a file is truncated or corrupt, or the files do not belong together.

    Example:
      >>> dataset = data.mnist_writers()  # doctest: +SKIP
    """
    arrays = _idx_arrays("mnist", data_dir, download)
    train_labels, test_labels = _writer_labels(resolve_data_dir(data_dir), arrays)
    owners = first_of_groups(train_labels[:, 2], writers_per_client)
    test_owners = test_labels[:, 2]
    if clients.get("own_test_fraction"):  # these writers are clients as well
        test_owners = first_of_groups(test_owners, writers_per_client)
    ids = {"client_ids": owners, "test_client_ids": test_owners}
    dataset = _image_dataset(
        "mnist_writers", arrays, _MNIST_MOMENTS, standardize, {**ids, **clients}
    )
    if dataset.client_ids is None:
        return dataset
    labels = np.concatenate([train_labels, test_labels])
    writers, rows = np.unique(labels[:, 2], return_index=True)
    of_client = labels[rows[np.searchsorted(writers, dataset.client_ids)], 1]
    series = {"hsf_series": of_client.astype(np.int32)}
    return dataclasses.replace(dataset, groups=series | dict(dataset.groups))


def first_of_groups(ids: np.ndarray, size: int) -> np.ndarray:
    """Returns for each id the first of its group: sorted ids make groups of `size`, in order.

    Args:
      ids: int[rows].
      size: Different ids of a group; the last one may have fewer.

    Raises:
      ValueError: If a group would be empty.
    """
    size = check_count("writers_per_client", size)
    different, number = np.unique(ids, return_inverse=True)
    return different[number // size * size]


def cifar10(
    *, data_dir=None, standardize: bool = True, download: bool | None = None, **clients
) -> FederatedDataset:
    """CIFAR-10 (Krizhevsky, 2009): 50,000 + 10,000 images, x uint8[32, 32, 3], 10 classes.

    Reads, in this order, the official binary version (`cifar-10-binary.tar.gz`, or unpacked as
    `cifar-10-batches-bin/`, in the data directory or its `cifar10/`); a class-balanced subset of
    15,000 + 3,000 images (`cifar10_subset/cifar10_subset.npz`; the dataset is then called
    "cifar10_subset", so that its results are not taken for those of all images); or what
    tensorflow-datasets has prepared.

    Args:
      data_dir: See `fljax.core.data_files.resolve_data_dir`.
      standardize: Zero mean and unit variance of each channel; else [0, 1].
      download: As in `mnist`.
      **clients: As in `mnist`.

    Raises:
      FileNotFoundError: If the data cannot be had; says which files to put where.
      ValueError: If a file is truncated or corrupt, or the partition is not possible.

    Example:
      >>> dataset = data.cifar10(partition='iid', num_clients=100)  # doctest: +SKIP
    """
    root = resolve_data_dir(data_dir)
    name, arrays = "cifar10", _cifar10_binary(root)
    if arrays is None and (root / _CIFAR10_SUBSET).is_file():
        name, arrays = "cifar10_subset", _cifar10_subset(root / _CIFAR10_SUBSET)
    if arrays is None:
        arrays = _from_tfds("cifar10", root, [f"cifar10/{_CIFAR10_ARCHIVE}"], download)
    return _image_dataset(name, arrays, _CIFAR10_MOMENTS, standardize, clients)


def _image_dataset(name, arrays: Arrays, moments, standardize: bool, clients) -> FederatedDataset:
    x, y, x_test, y_test = arrays
    return from_arrays(
        x,
        y,
        x_test=x_test,
        y_test=y_test,
        num_classes=10,
        preprocess=image_scaling(moments if standardize else None),
        name=name,
        **clients,
    )


def _idx_arrays(name: str, data_dir, download: bool | None) -> Arrays:
    """Reads the four files of an MNIST-like source, or what tensorflow-datasets has."""
    root = resolve_data_dir(data_dir)
    paths = [find_file(root / name, file) for file in _IDX_NAMES]
    if not all(paths):
        wanted = [f"{name}/{f}.gz" for f, path in zip(_IDX_NAMES, paths, strict=True) if not path]
        return _from_tfds(name, root, wanted, download)
    x, y, x_test, y_test = (read_idx(path) for path in paths)
    for images, labels, path in ((x, y, paths[0]), (x_test, y_test, paths[2])):
        if images.shape[1:] != (28, 28) or labels.shape != images.shape[:1]:
            raise ValueError(
                f"{path} holds {list(images.shape)} pixels and its label file {list(labels.shape)} "
                "labels: they do not belong together, download them again"
            )
        if images.dtype != np.uint8:
            raise refused(path, f"holds {images.dtype} pixels, not bytes")
        _check_classes(labels, path.with_name(path.name.replace("images-idx3", "labels-idx1")))
    return x[..., None], y, x_test[..., None], y_test


def _from_tfds(name: str, root: pathlib.Path, wanted: list[str], download: bool | None) -> Arrays:
    """Returns the arrays that tensorflow-datasets has, or raises FileNotFoundError."""
    allowed = is_online() if download is None else download
    try:
        train, test = load_tfds(name, ("train", "test"), root, allowed)
    except Exception as error:
        # Whatever kept tensorflow-datasets from it, what helps is to know which files to get.
        also = f"tensorflow-datasets was tried as well: {type(error).__name__}: {error}"
        if download is None and not allowed and not isinstance(error, ImportError):
            also += (
                "\nNothing was downloaded, as the machine seems to be offline; download=True tries."
            )
        raise FileNotFoundError(missing_files(name, wanted, root, also)) from error
    return train["image"], train["label"], test["image"], test["label"]


def _writer_labels(root: pathlib.Path, arrays: Arrays) -> tuple[np.ndarray, np.ndarray]:
    """Reads QMNIST's label rows of the MNIST images: int32[60000, 8] and int32[10000, 8]."""
    paths = [find_file(root / "qmnist_writers", name) for name in _WRITER_NAMES]
    if not all(paths):
        wanted = [
            f"qmnist_writers/{n}.gz" for n, p in zip(_WRITER_NAMES, paths, strict=True) if not p
        ]
        raise FileNotFoundError(missing_files("mnist_writers", wanted, root))
    tables = []
    for path, y in zip(paths, arrays[1::2], strict=True):
        table = read_idx(path)[: len(y)]
        if table.shape != (len(y), 8) or np.any(table[:, 0] != y):
            raise ValueError(f"{path} does not describe the MNIST images: its classes differ")
        tables.append(table)
    return tables[0], tables[1]


def _cifar10_binary(root: pathlib.Path) -> Arrays | None:
    """Reads the official binary version, or returns None where it is not."""
    names = [f"{_CIFAR10_BINARY}/data_batch_{i}.bin" for i in range(1, 6)]
    names.append(f"{_CIFAR10_BINARY}/test_batch.bin")
    found = cifar_binary(root, "cifar10", _CIFAR10_ARCHIVE, names, (10,))
    if found is None:
        return None
    pairs = [(x, labels[:, 0]) for x, labels in found]
    x, y = (np.concatenate(parts) for parts in zip(*pairs[:5], strict=True))
    return x, y, *pairs[5]


def cifar_binary(
    root: pathlib.Path, dataset: str, archive: str, names: Sequence[str], classes: Sequence[int]
) -> list[tuple[np.ndarray, np.ndarray]] | None:
    """Reads the binary version of a CIFAR data set, or returns None where it is not.

    Args:
      root: The data directory; its folder `dataset` is looked into as well.
      dataset: "cifar10" or "cifar100".
      archive: Name of the official archive.
      names: Its members, as they lie in it, or unpacked.
      classes: How many there are of each of a record's labels.

    Returns:
      For each member (images uint8[rows, 32, 32, 3], labels uint8[rows, labels of a record]).

    Raises:
      FileNotFoundError: If some of the members are there, and others are not.
      ValueError: If one is truncated or corrupt.
    """
    for folder in (root, root / dataset):
        if (folder / names[0]).is_file():
            missing = [name for name in names if not (folder / name).is_file()]
            if missing:
                raise FileNotFoundError(missing_files(dataset, missing, folder))
            contents = [read_bytes(folder / name, _CIFAR_MOST) for name in names]
        elif (folder / archive).is_file():
            contents = read_members(folder / archive, names, _CIFAR_MOST)
        else:
            continue
        paths = [folder / name for name in names]
        return [_records(c, path, classes) for c, path in zip(contents, paths, strict=True)]
    return None


def _records(content: bytes, path: pathlib.Path, classes: Sequence[int]):
    """Decodes records of label bytes and three 32 x 32 colour planes."""
    size = len(classes) + 3 * 32 * 32
    if not content or len(content) % size:
        raise ValueError(
            f"{path} has {len(content)} bytes, which is no multiple of {size}: it is "
            "incomplete, download it again"
        )
    records = np.frombuffer(content, np.uint8).reshape(-1, size)
    for column, count in enumerate(classes):
        _check_classes(records[:, column], path, count)
    planes = records[:, len(classes) :].reshape(-1, 3, 32, 32)
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), records[:, : len(classes)]


def _cifar10_subset(path: pathlib.Path) -> Arrays:
    """Reads the subset, and checks that its arrays are images and their labels."""
    found = read_npz(path, _CIFAR_MOST)
    names = ("x_train", "y_train", "x_test", "y_test")
    if missing := [name for name in names if name not in found]:
        raise refused(path, f"holds no array {missing[0]!r}: download it again")
    for images, labels in (names[:2], names[2:]):
        x, y = found[images], found[labels]
        if x.dtype != np.uint8 or x.shape[1:] != (32, 32, 3) or y.shape != x.shape[:1]:
            raise refused(
                path,
                f"holds {images} as {x.dtype}{list(x.shape)} and {labels} as "
                f"{y.dtype}{list(y.shape)}, not bytes of 32 x 32 x 3 and a label each",
            )
        _check_classes(y, path)
    x_train, y_train, x_test, y_test = (found[name] for name in names)
    return x_train, y_train, x_test, y_test


def _check_classes(labels: np.ndarray, path: pathlib.Path, classes: int = 10) -> None:
    """Raises ValueError if labels of a file are not the numbers of the classes."""
    last = classes - 1
    if (
        labels.dtype.kind not in "iu"
        or labels.size
        and not 0 <= labels.min() <= labels.max() <= last
    ):
        found = f", {labels.min()} to {labels.max()}" if labels.size else ""
        raise refused(path, f"holds labels that are not 0 to {last} ({labels.dtype}{found})")
