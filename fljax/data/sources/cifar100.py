"""CIFAR-100 (Krizhevsky 2009), divided by TensorFlow Federated, or by a partition of one's own."""

from __future__ import annotations

import numpy as np

from fljax.core.data_files import resolve_data_dir
from fljax.data.arrays import from_arrays
from fljax.data.dataset import FederatedDataset
from fljax.data.image_scaling import image_scaling
from fljax.data.readers.gathering import Piece
from fljax.data.readers.population import population
from fljax.data.readers.records import Record
from fljax.data.sources.images import cifar_binary
from fljax.data.sources.tff_files import tff_cache

# Channel means and standard deviations of the training images, in units of [0, 1].
_MOMENTS = ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762))
_DATABASE = "cifar100.sqlite"
_HDF5 = {split: f"fed_cifar100_{split}.h5" for split in ("train", "test")}
_ARCHIVE = "cifar-100-binary.tar.gz"
_MEMBERS = ("cifar-100-binary/train.bin", "cifar-100-binary/test.bin")
_LABELS = (20, 100)  # coarse ones, then fine ones


def cifar100(
    *, standardize: bool = True, data_dir=None, cache_dir=None, **clients
) -> FederatedDataset:
    """CIFAR-100: 50,000 + 10,000 images, x uint8[32, 32, 3], 100 classes.

    Natural clients are TensorFlow Federated's, made by Pachinko allocation: 500 of 100 images each,
    and 100 others who are tested, the `held_out` clients and the global test set. They are read
    from `cifar100/cifar100.sqlite.lzma` of the data directory, unpacked or not, or
    `cifar100/fed_cifar100_{train,test}.h5`. Any other partition takes the official binary version
    where it is there, `cifar-100-binary.tar.gz` or unpacked, in the data directory or its
    `cifar100/`. Reddi et al. (arXiv:2003.00295) crop images to 24 x 24 at random, and flip them,
    which is augmentation and none of the data.

    Args:
      standardize: Zero mean and unit variance of each channel; else [0, 1].
      data_dir: See `fljax.core.data_files.resolve_data_dir`.
      cache_dir: See `fljax.data.readers.cache.cached`.
      **clients: As in `mnist`; the default partition is "natural".

    Raises:
      FileNotFoundError: If the files are missing.
      ValueError: If a file is truncated or corrupt, or the partition is not possible.

    Example:
      >>> dataset = data.cifar100(partition="pachinko", num_clients=500)  # doctest: +SKIP
    """
    preprocess = image_scaling(_MOMENTS if standardize else None)
    root = resolve_data_dir(data_dir)
    if clients.get("partition") not in (None, "natural"):
        found = cifar_binary(root, "cifar100", _ARCHIVE, _MEMBERS, _LABELS)
        if found is not None:
            (x, y), (x_test, y_test) = found
            return from_arrays(
                x,
                y[:, 1],
                x_test=x_test,
                y_test=y_test[:, 1],
                num_classes=100,
                preprocess=preprocess,
                name="cifar100",
                **clients,
            )
    splits = {"train": "train", "test": "test"}
    cache = tff_cache(
        "cifar100", _DATABASE, _HDF5, splits, _rows,
        options={}, data_dir=data_dir, cache_dir=cache_dir,
    )  # fmt: skip
    return population(
        cache,
        name="cifar100",
        kind="classification",
        num_classes=100,
        preprocess=preprocess,
        **clients,
    )


def _rows(record: Record) -> Piece:
    images, labels = np.asarray(record.features["image"]), np.asarray(record.features["label"])
    if images.size != 3072 * len(labels) or not 0 <= images.min() <= images.max() <= 255:
        raise ValueError(
            f"{record.where}: images are {images.dtype}{list(images.shape)} from {images.min()} to "
            f"{images.max()}, not bytes of 32 x 32 x 3"
        )
    x = images.astype(np.uint8).reshape(-1, 32, 32, 3)
    y = labels.astype(np.int32).reshape(-1)
    # clients of both splits are numbered from 0, and are not the same
    client = np.asarray(record.client).astype(str)
    if record.split == "test":
        client = np.char.add("test_", client)
    return Piece(record.split, np.broadcast_to(client, y.shape), {"x": x, "y": y}, record.where)
