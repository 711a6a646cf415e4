"""EMNIST by writer: handwritten digits and letters, a client for each of some 3,400 people.

The data of TensorFlow Federated, made by LEAF (Caldas et al., arXiv:1812.01097) of NIST's forms
(Cohen et al., arXiv:1702.05373), and used by Reddi et al. (arXiv:2003.00295): each writer's images
are divided into some to train and some to test on. Paper is 1 and ink is 0, the reverse of MNIST.
"""

from __future__ import annotations

import numpy as np

from fljax.core.values import Field, checked, wrong
from fljax.data.dataset import FederatedDataset
from fljax.data.image_scaling import image_scaling
from fljax.data.readers.gathering import Piece
from fljax.data.readers.population import population
from fljax.data.readers.records import Record
from fljax.data.sources.tff_files import tff_cache

_NAMES = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def emnist(
    *, classes: int = 62, invert: bool = False, data_dir=None, cache_dir=None, **clients
) -> FederatedDataset:
    """EMNIST by writer: 671,585 + 77,483 images of 3,400 people, x uint8[28, 28, 1], 62 classes.

    Reads `emnist/emnist_all.sqlite.lzma` of the data directory, unpacked or not, else TensorFlow
    Federated's older `emnist/fed_emnist_{train,test}.h5` (10 classes:
    `fed_emnist_digitsonly_{train,test}.h5`). Pixels are rounded to a 255th, and in [0, 1] to the
    model.

    Args:
      classes: 62, digits, upper case and lower case; or 10, digits alone: 3,383 people, 341,873 +
        40,832 images.
      invert: Whether ink is 1 and paper 0, as in MNIST, and in FedJAX; else as in TensorFlow
        Federated and Reddi et al.
      data_dir: See `fljax.core.data_files.resolve_data_dir`.
      cache_dir: See `fljax.data.readers.cache.cached`.
      **clients: As in `mnist`; the default partition is "natural".

    Raises:
      FileNotFoundError: If the files are missing.
      ValueError: If a file is truncated or corrupt, or the partition is not possible.

    Example:
      >>> dataset = data.emnist(classes=10)  # doctest: +SKIP
    """
    if classes not in (10, 62):
        raise wrong("classes", classes, "62, digits and letters, or 10, digits alone")
    invert = checked("invert", invert, Field(False, bool))
    which, part = (
        ("all", "fed_emnist") if classes == 62 else ("digits_only", "fed_emnist_digitsonly")
    )
    cache = tff_cache(
        "emnist",
        "emnist_all.sqlite",
        {split: f"{part}_{split}.h5" for split in ("train", "test")},
        {split: f"{which}_{split}" for split in ("train", "test")},
        _rows,
        options={"classes": classes},
        data_dir=data_dir,
        cache_dir=cache_dir,
    )
    scale = image_scaling(None)
    return population(
        cache,
        name="emnist" if classes == 62 else "emnist_digits",
        kind="classification",
        class_names=tuple(_NAMES[:classes]),
        preprocess=(lambda batch: _inverted(scale(batch))) if invert else scale,
        **clients,
    )


def _inverted(batch):
    return {**batch, "x": 1 - batch["x"]}


def _rows(record: Record) -> Piece:
    pixels, labels = np.asarray(record.features["pixels"]), np.asarray(record.features["label"])
    if pixels.size != 784 * len(labels) or not 0 <= pixels.min() <= pixels.max() <= 1:
        raise ValueError(
            f"{record.where}: pixels are {pixels.dtype}{list(pixels.shape)} from "
            f"{pixels.min():g} to {pixels.max():g}, not 28 x 28 from 0 to 1"
        )
    x = np.rint(255 * pixels).astype(np.uint8).reshape(-1, 28, 28, 1)
    y = labels.astype(np.int32).reshape(-1)
    return Piece(record.split, record.client, {"x": x, "y": y}, record.where)
