"""Reads what tensorflow-datasets has prepared: record by record without TensorFlow, or whole."""

from __future__ import annotations

import pathlib
import socket
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from fljax.core import optional
from fljax.core.data_files import resolve_data_dir
from fljax.data.dataset import FederatedDataset
from fljax.data.readers.blocks import Block, Opened, Reading
from fljax.data.readers.cache import cached
from fljax.data.readers.gathering import joined
from fljax.data.readers.options import How, with_how
from fljax.data.readers.records import Record, dataset_of, split_names

_BLOCK_BYTES, _MOST_ROWS = 4 << 20, 20_000

# Where tensorflow-datasets keeps what it has prepared, and the host of MNIST's files.
_HOST, _PORT, _SECONDS = "storage.googleapis.com", 443, 3.0


@with_how
def tfds(
    name: str,
    *,
    client: str | None = None,
    splits: Mapping[str, str] | None = None,
    how: How,
    download: bool = False,
    data_dir=None,
    cache_dir=None,
    verify: bool = False,
    **clients,
) -> FederatedDataset:
    """A data set of tensorflow-datasets (TFDS), prepared as array_record: `"tfds:NAME"`.

    Args:
      name: Of the data set there, such as "mnist" or "glue/sst2".
      client: The feature that is the client's id, an integer or a text; default: rows have no
        clients of their own, and the partition is "iid".
      splits: {"train" | "val" | "test": its name there}. Default: the names say it.
      how: The options of `fljax.data.readers.options.how`, by their names. A feature in another is
        called "outer/inner".
      download: Whether data that are not prepared may be; that needs TensorFlow and the network.
      data_dir: Its `tfds/` is used where it exists, else the package's own folder.
      cache_dir, verify, **clients: As in `tff`.

    Raises:
      FileNotFoundError: If the data are not prepared.
      ImportError: If the package, or TensorFlow where it is needed, is not installed.
      ValueError: If there is no such data set, or the options do not fit.

    Example:
      >>> dataset = data.load('tfds:mnist', features='image', num_clients=100)  # doctest: +SKIP
    """
    builder = _builder(name, _folder(resolve_data_dir(data_dir)))
    if not builder.info.splits:
        _prepare(builder, name, download)
    names = split_names(list(builder.info.splits), splits, f"tfds:{name}")
    where = f"tfds:{name}"

    def open_records() -> Opened:
        sources = {split: builder.as_data_source(split=names[split]) for split in names}
        size = _rows_of_a_block(sources["train"])
        found = how.reader(lambda: _records(sources, client, size, where), where)

        def blocks(start: int) -> Iterator[Block]:
            for record in _records(sources, client, size, where, start):
                yield joined([*found.pieces([record])])

        return Opened(blocks, found.facts, sum(map(len, sources.values())))

    reading = Reading(
        "tfds",
        [pathlib.Path(builder.data_dir), *how.files],
        {**how.plain, "splits": names, "client": client},
        open_records,
    )
    cache = cached(reading, cache_dir, verify)
    return dataset_of(
        cache,
        name.replace("/", "_"),
        {"natural": client is not None, "num_classes": how.num_classes, **clients},
    )


def _builder(name: str, data_dir: str | None):
    package = _package()
    try:
        return package.builder(name, data_dir=data_dir)
    except (package.core.registered.DatasetNotFoundError, AttributeError) as error:
        first = str(error).partition("\n")[0]
        raise ValueError(f"tfds:{name}: {first} See https://www.tensorflow.org/datasets.") from None


def _prepare(builder, name: str, download: bool) -> None:
    """Downloads and prepares a data set, or says how it can be."""
    if not download or not _has_tensorflow():
        needs = (
            ""
            if _has_tensorflow()
            else f", which needs TensorFlow: {optional.remedy('tensorflow')}"
        )
        how = "TensorFlow is not installed" if download else "it is with download=True"
        raise FileNotFoundError(
            f"tfds:{name} is not prepared in {builder.data_dir}: {how}{needs}. Data prepared on "
            "another machine, tfds.builder(...).download_and_prepare(file_format='array_record'), "
            "may be copied there, and are read without TensorFlow."
        )
    builder.download_and_prepare(file_format="array_record")


def _rows_of_a_block(source) -> int:
    size = sum(np.asarray(value).nbytes for value in _flat(source[0]).values())
    return min(max(_BLOCK_BYTES // max(size, 1), 1), _MOST_ROWS)


def _records(
    sources: Mapping[str, Any], client: str | None, size: int, where: str, start: int = 0
) -> Iterator[Record]:
    """Yields the rows of each split, `size` at once, but the first `start` times."""
    for split, source in sources.items():
        begins = range(0, len(source), size)
        for begin in begins[start:]:
            rows = [_flat(source[row]) for row in range(begin, min(begin + size, len(source)))]
            place = f"{where}, rows from {begin:,} of {split}"
            features = {name: _column([row[name] for row in rows]) for name in rows[0]}
            if client is not None and client not in features:
                there = ", ".join(features)
                raise ValueError(f"{place}: there is no feature {client!r}, but these: {there}")
            ids = np.zeros(len(rows), np.int64) if client is None else features.pop(client)
            yield Record(split, np.asarray(ids), features, place)
        start = max(start - len(begins), 0)


def _flat(record: Mapping[str, Any], outer: str = "") -> dict[str, Any]:
    found = {}
    for name, value in record.items():
        inner = (
            _flat(value, f"{outer}{name}/") if isinstance(value, Mapping) else {outer + name: value}
        )
        found.update(inner)
    return found


def _column(values: list) -> np.ndarray | list[str]:
    if isinstance(values[0], bytes):
        return [value.decode() for value in values]
    shapes = {np.shape(value) for value in values}
    return np.stack(values) if len(shapes) == 1 else values


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
    package = _package()
    data_dir = _folder(root)
    try:
        sources = package.data_source(name, split=splits, data_dir=data_dir, download=download)
        return [_stacked(source) for source in sources]
    except Exception:
        # Data that were prepared in a format without random access can be read by TensorFlow alone.
        if not _has_tensorflow():
            raise
    whole = package.load(
        name, split=list(splits), data_dir=data_dir, download=download, batch_size=-1
    )
    return [dict(split) for split in package.as_numpy(whole)]


def _package():
    with optional.needed("tensorflow_datasets"):
        import tensorflow_datasets
    return tensorflow_datasets


def _folder(root: pathlib.Path) -> str | None:
    """Returns the folder of prepared data in the data directory, or None for the package's."""
    return str(root / "tfds") if (root / "tfds").is_dir() else None


def _stacked(source) -> dict[str, np.ndarray]:
    records = [source[i] for i in range(len(source))]
    return {name: np.stack([record[name] for record in records]) for name in records[0]}


def _has_tensorflow() -> bool:
    return optional.is_there("tensorflow")
