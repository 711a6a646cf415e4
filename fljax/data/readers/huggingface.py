"""Reads data sets that Hugging Face's `datasets` has saved, or has on its hub, by name."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from fljax.core.values import checked_path
from fljax.data.dataset import FederatedDataset
from fljax.data.files import resolve_data_dir
from fljax.data.readers.objects import from_huggingface


def huggingface(
    *,
    path: str,
    client: str | None = None,
    splits: Mapping[str, str] | None = None,
    features: str | Sequence[str] | None = None,
    label: str | None = None,
    target: str | None = None,
    shape: Sequence[int] | None = None,
    dtype: str | None = None,
    text: str | None = None,
    vocabulary: str | None = None,
    vocabulary_size: int = 10_000,
    sequence_length: int | None = None,
    num_classes: int | None = None,
    data_dir=None,
    **clients,
) -> FederatedDataset:
    """A data set of Hugging Face's `datasets`, which must be installed.

    Args:
      path: A folder that `save_to_disk` wrote, as it is or in the data directory; else a name on
        the hub, which is downloaded.
      client, splits, features, label, target, shape, dtype, text, vocabulary, vocabulary_size,
        sequence_length, num_classes, **clients: As in `from_huggingface`.
      data_dir: See `resolve_data_dir`.

    Raises:
      ImportError: If `datasets` is not installed.
      FileNotFoundError: If the folder is no such data set, or the hub has none of that name.
      ValueError: If the options do not fit.

    Example:
      >>> dataset = data.load('huggingface', path='mnist', num_clients=100)  # doctest: +SKIP
    """
    try:
        import datasets
    except ImportError as error:
        raise ImportError(
            "datasets of Hugging Face is not installed: pip install 'fljax[huggingface]'"
        ) from error
    given = checked_path("path", path).expanduser()
    folder = next((p for p in (given, resolve_data_dir(data_dir) / given) if p.is_dir()), None)
    found = (
        datasets.load_dataset(os.fspath(path))
        if folder is None
        else datasets.load_from_disk(os.fspath(folder))
    )
    return from_huggingface(
        found,
        client=client,
        splits=splits,
        features=features,
        label=label,
        target=target,
        shape=shape,
        dtype=dtype,
        text=text,
        vocabulary=vocabulary,
        vocabulary_size=vocabulary_size,
        sequence_length=sequence_length,
        num_classes=num_classes,
        name=given.name,
        **clients,
    )
