"""Reads whole splits through tensorflow-datasets, with or without TensorFlow."""

from __future__ import annotations

import importlib.util
import pathlib
import socket

import numpy as np

# Where tensorflow-datasets keeps what it has prepared, and the host of MNIST's files.
_HOST, _PORT, _SECONDS = "storage.googleapis.com", 443, 3.0


def is_online() -> bool:
    """Returns whether the host of tensorflow-datasets answers; asks for three seconds at most."""
    try:
        with socket.create_connection((_HOST, _PORT), timeout=_SECONDS):
            return True
    except OSError:
        return False


def load_tfds(
    name: str, splits: tuple[str, ...], root: pathlib.Path, download: bool
) -> list[dict[str, np.ndarray]]:
    """Returns whole splits as arrays.

    Args:
      name: Of the dataset at tensorflow-datasets.
      splits: Names of its splits.
      root: The data directory; its `tfds/` is used where it exists, else the package's default.
      download: Whether data that are not there yet may be downloaded and prepared.

    Returns:
      For each split {feature: array[rows, ...]}.

    Raises:
      ImportError: If the package is not installed.
      Exception: Whatever tensorflow-datasets raises where it cannot get the data.
    """
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise ImportError(
            "tensorflow-datasets is not installed: pip install tensorflow-datasets array_record"
        ) from error
    data_dir = str(root / "tfds") if (root / "tfds").is_dir() else None
    try:
        sources = tfds.data_source(name, split=splits, data_dir=data_dir, download=download)
        return [_stacked(source) for source in sources]
    except Exception:
        # Data that were prepared in a format without random access can be read by TensorFlow alone.
        if not _has_tensorflow():
            raise
    whole = tfds.load(name, split=list(splits), data_dir=data_dir, download=download, batch_size=-1)
    return [dict(split) for split in tfds.as_numpy(whole)]


def _stacked(source) -> dict[str, np.ndarray]:
    records = [source[i] for i in range(len(source))]
    return {name: np.stack([record[name] for record in records]) for name in records[0]}


def _has_tensorflow() -> bool:
    return importlib.util.find_spec("tensorflow") is not None
