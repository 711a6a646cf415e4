"""Reads data sets that Hugging Face's `datasets` has saved, or has on its hub, by name."""

from __future__ import annotations

import inspect
import os
from typing import Any

from fljax.core import optional
from fljax.core.data_files import resolve_data_dir
from fljax.core.values import checked_path
from fljax.data.dataset import FederatedDataset
from fljax.data.readers.objects import from_huggingface


def huggingface(*, path: str, data_dir=None, **options: Any) -> FederatedDataset:
    """A data set of Hugging Face's `datasets`, which must be installed.

    Args:
      path: A folder that `save_to_disk` wrote, as it is or in the data directory; else a name on
        the hub, which is downloaded.
      data_dir: See `resolve_data_dir`.
      **options: Those of `from_huggingface`.

    Raises:
      ImportError: If `datasets` is not installed.
      FileNotFoundError: If the folder is no such data set, or the hub has none of that name.
      ValueError: If the options do not fit.

    Example:
      >>> dataset = data.load('huggingface', path='mnist', num_clients=100)  # doctest: +SKIP
    """
    with optional.needed("datasets"):
        import datasets
    given = checked_path("path", path).expanduser()
    places = (given, resolve_data_dir(data_dir) / given)
    if folder := next((place for place in places if place.is_dir()), None):
        found = datasets.load_from_disk(os.fspath(folder))
    else:
        found = datasets.load_dataset(os.fspath(path))
    return from_huggingface(found, **{"name": given.name, **options})


_OWN = [*inspect.signature(huggingface).parameters.values()][:-1]
_SHARED = [*inspect.signature(from_huggingface).parameters.values()][1:]
# The options stand in the signature, so that texts may give them.
vars(huggingface)["__signature__"] = inspect.Signature([*_OWN, *_SHARED])
