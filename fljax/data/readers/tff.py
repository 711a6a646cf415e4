"""Reads the data of TensorFlow Federated: SQLite packed by LZMA, and HDF5, without TensorFlow.

A database has the tables `examples(split_name, client_id, serialized_example_proto)`, a row an
example, and `client_metadata(client_id, split_name, num_examples)`. An HDF5 file of one split has
an array `examples/<client>/<feature>` for each feature of each client.
"""

from __future__ import annotations

import itertools
import pathlib
from collections.abc import Iterator, Mapping

import numpy as np

from fljax.core import optional
from fljax.core.archives import refused, whole
from fljax.data.dataset import FederatedDataset
from fljax.data.readers.blocks import Block, Opened, Reading, skipping
from fljax.data.readers.cache import cached
from fljax.data.readers.databases import Database
from fljax.data.readers.gathering import gathered, joined
from fljax.data.readers.options import How, with_how
from fljax.data.readers.records import (
    Read,
    Record,
    dataset_of,
    files_of,
    roles_of,
    split_names,
)
from fljax.data.readers.tf_example import parse

_HDF5 = (".h5", ".hdf5")
_TABLES = ("examples", "client_metadata")
_BLOCK_BYTES, _FEWEST_ROWS, _MOST_ROWS = 2 << 20, 64, 50_000
_SAMPLED_ROWS = 100


@with_how
def tff(
    *,
    path: str,
    test_path: str | None = None,
    val_path: str | None = None,
    splits: Mapping[str, str] | None = None,
    how: How,
    data_dir=None,
    cache_dir=None,
    verify: bool = False,
    **clients,
) -> FederatedDataset:
    """Data of TensorFlow Federated (TFF); its clients are the natural ones.

    Args:
      path: A database (.sqlite, .sqlite.lzma) of all splits, or the HDF5 file of the training
        split, which needs h5py.
      test_path: HDF5 file of the test split.
      val_path: HDF5 file of the validation split.
      splits: {"train" | "val" | "test": its name in the database}. Default: the names say it, and
        "held_out" is for validation.
      how: The options of `fljax.data.readers.options.how`, by their names.
      data_dir: Where a relative path is looked for as well, see `resolve_data_dir`.
      cache_dir: See `fljax.data.readers.cache`.
      verify: Whether the checksums of what is cached are compared.
      **clients: partition, num_clients, seed, val_fraction and the partition's options, as in
        `from_arrays`.

    Raises:
      FileNotFoundError: If a file is not there.
      ImportError: If h5py is needed and not installed.
      ValueError: If a file is truncated, corrupt or of another format, or the options do not fit.

    Example:
      >>> dataset = data.load('tff', path='cifar100.sqlite.lzma', features='image',
      ...     shape=[32, 32, 3], dtype='uint8')  # doctest: +SKIP
    """
    paths = files_of(data_dir, path=path, val_path=val_path, test_path=test_path)
    is_hdf5 = paths["train"].suffix in _HDF5
    if not is_hdf5 and len(paths) > 1:
        raise ValueError(
            f"{paths['train']} is a database, which holds all splits: name those of it (splits="
            "{'test': ...}), and leave test_path and val_path out"
        )
    if is_hdf5 and splits is not None:
        raise ValueError("splits names those of a database: give test_path=... of HDF5 files")

    reading = Reading(
        "tff",
        [*paths.values(), *how.files],
        {**how.plain, "splits": splits, "roles": roles_of(paths)},
        lambda: (
            open_hdf5(paths, how.reader)
            if is_hdf5
            else open_sqlite(paths["train"], how.reader, splits)
        ),
    )
    cache = cached(reading, cache_dir, verify)
    return dataset_of(
        cache, paths["train"].name.partition(".")[0], {"num_classes": how.num_classes, **clients}
    )


def open_sqlite(path: pathlib.Path, read: Read, splits: Mapping[str, str] | None = None) -> Opened:
    """Opens a database of TensorFlow Federated.

    Args:
      path: Of the file, unpacked or packed (.sqlite.lzma).
      read: What makes rows of records.
      splits: {split: its name in the database}; None: each name that says itself what it is.

    Raises:
      ValueError: If the file is truncated, corrupt or of another format, or the fields do not fit.
    """
    database = Database(path, _TABLES)
    counts = dict(
        database.rows(
            "SELECT split_name, SUM(num_examples) FROM client_metadata GROUP BY split_name"
        )
    )
    names = split_names(list(counts), splits, str(path))
    rows = {split: counts[name] for split, name in names.items()}
    size = _rows_of_a_block(database)
    looked_at = min(size, _SAMPLED_ROWS)
    found = read(lambda: _records(database, names, rows, looked_at), str(path))

    def blocks(start: int) -> Iterator[Block]:
        for record in _records(database, names, rows, size, start):
            yield joined([*found.pieces([record])])

    return Opened(blocks, found.facts, sum(rows.values()))


def _rows_of_a_block(database: Database) -> int:
    sizes = [
        size
        for (size,) in database.rows(
            f"SELECT LENGTH(serialized_example_proto) FROM examples LIMIT {_SAMPLED_ROWS}"
        )
    ]
    mean = sum(sizes) // max(len(sizes), 1)
    return min(max(_BLOCK_BYTES // max(mean, 1), _FEWEST_ROWS), _MOST_ROWS)


def _records(
    database: Database, names: Mapping[str, str], rows: Mapping[str, int], size: int, start: int = 0
) -> Iterator[Record]:
    """Yields the rows of each split, `size` at once, but the first `start` times."""
    for split, name in names.items():
        skipped = min(start, -(-rows[split] // size))
        start -= skipped
        seen = min(skipped * size, rows[split])
        # the plus keeps SQLite from sorting by an index on the name
        found = database.later_rows(
            "client_id, serialized_example_proto", "examples", "+split_name = ?", [name], seen
        )
        while some := list(itertools.islice(found, size)):
            where = f"{database.path}, rows from {seen:,} of {name!r}"
            ids = np.array([client for client, _ in some])
            yield Record(split, ids, _features([message for _, message in some], where), where)
            seen += len(some)
        if seen != rows[split]:
            raise refused(
                database.path,
                f"has {seen:,} examples of {name!r}, but says in client_metadata that there are "
                f"{rows[split]:,}: get it again",
            )


def _features(messages: list[bytes], where: str) -> dict[str, np.ndarray | list[str]]:
    """Returns {feature: values of all examples}; a list of one value is the value itself."""
    examples = []
    for number, message in enumerate(messages):
        try:
            examples.append(parse(message))
        except (ValueError, TypeError) as error:
            raise ValueError(f"{where}: example {number:,} is corrupt ({error})") from None
    names = sorted(set().union(*examples))
    if not names:
        raise ValueError(f"{where}: its examples have no features")
    found: dict[str, np.ndarray | list[str]] = {}
    for name in names:
        values = [example.get(name, ()) for example in examples]
        lengths = {len(value) for value in values}
        if len(lengths) > 1:
            raise ValueError(
                f"{where}: the feature {name!r} is not there in all examples, or not of one length"
            )
        if isinstance(values[0], list):
            texts = [text.decode() for (text,) in values] if lengths == {1} else values
            found[name] = texts
        else:
            stacked = np.stack(values)
            found[name] = stacked[:, 0] if lengths == {1} else stacked
    return found


def open_hdf5(paths: Mapping[str, pathlib.Path], read: Read) -> Opened:
    """Opens HDF5 files of TensorFlow Federated.

    Args:
      paths: {split: file}.
      read: What makes rows of records.

    Raises:
      ImportError: If h5py is not installed.
      ValueError: If a file is truncated, corrupt or of another format, or the fields do not fit.
    """
    first = next(iter(paths.values()))
    found = read(lambda: _hdf5_records(paths), str(first))
    return Opened(skipping(lambda: gathered(found.pieces(_hdf5_records(paths)))), found.facts)


def _hdf5_records(paths: Mapping[str, pathlib.Path]) -> Iterator[Record]:
    with optional.needed("h5py"):
        import h5py
    for split, path in paths.items():
        with whole(path, "get it again"), h5py.File(path) as file:
            if "examples" not in file:
                raise refused(path, "has no group 'examples', as files of TFF have")
            for client, arrays in file["examples"].items():
                features = {name: _array(array[()]) for name, array in arrays.items()}
                yield Record(split, client, features, f"{path}, client {client!r}")


def _array(values):
    if isinstance(values, np.ndarray) and values.dtype.kind in "OS":
        return [text.decode() if isinstance(text, bytes) else text for text in values.tolist()]
    return np.atleast_1d(values)
