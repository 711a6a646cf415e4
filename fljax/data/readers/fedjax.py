"""Reads FedJAX's SQLite databases: one row a client, its examples packed by zlib and msgpack.

The table is `federated_data(client_id BLOB, data BLOB, num_examples INTEGER)`. `data` holds
{feature: array}; an array is an extension of msgpack: type 1 is (shape, name of the NumPy type, the
bytes row by row), type 4 is (shape, texts).
"""

from __future__ import annotations

import itertools
import pathlib
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from fljax.core.archives import refused
from fljax.core.values import shown
from fljax.data.dataset import FederatedDataset
from fljax.data.readers.blocks import Block, Opened, Reading
from fljax.data.readers.cache import cached
from fljax.data.readers.databases import Database, readable
from fljax.data.readers.gathering import joined
from fljax.data.readers.options import How, with_how
from fljax.data.readers.records import Read, Record, dataset_of, files_of, roles_of

_TABLE = "federated_data"
_ARRAY, _TEXTS = 1, 4
_MOST_BYTES = 1 << 30  # of one client, unpacked
_BLOCK_ROWS, _MOST_CLIENTS = 20_000, 10_000


@with_how
def fedjax(
    *,
    path: str,
    test_path: str | None = None,
    val_path: str | None = None,
    how: How,
    data_dir=None,
    cache_dir=None,
    verify: bool = False,
    **clients,
) -> FederatedDataset:
    """Data of FedJAX, an SQLite database a split; its clients are the natural ones.

    Args:
      path: The database of the training split.
      test_path: That of the test split.
      val_path: That of the validation split, which FedJAX calls held_out.
      how: The options of `fljax.data.readers.options.how`, by their names.
      data_dir, cache_dir, verify, **clients: As in `tff`.

    Raises:
      FileNotFoundError: If a file is not there.
      ValueError: If a file is truncated, corrupt or of another format, or the options do not fit.

    Example:
      >>> dataset = data.load('fedjax', path='shakespeare_train.sqlite',
      ...     test_path='shakespeare_test.sqlite', text='characters')  # doctest: +SKIP
    """
    paths = files_of(data_dir, path=path, val_path=val_path, test_path=test_path)
    reading = Reading(
        "fedjax",
        [*paths.values(), *how.files],
        {**how.plain, "roles": roles_of(paths)},
        lambda: open_sqlite(paths, how.reader),
    )
    cache = cached(reading, cache_dir, verify)
    return dataset_of(
        cache, paths["train"].name.partition(".")[0], {"num_classes": how.num_classes, **clients}
    )


def open_sqlite(paths: Mapping[str, pathlib.Path], read: Read) -> Opened:
    """Opens FedJAX's databases.

    Args:
      paths: {split: file}.
      read: What makes rows of records.

    Raises:
      ValueError: If a file is truncated, corrupt or of another format, or the fields do not fit.
    """
    databases = {split: Database(path, [_TABLE]) for split, path in paths.items()}
    counts = {
        split: next(database.rows(f"SELECT COUNT(*), SUM(num_examples) FROM {_TABLE}"))
        for split, database in databases.items()
    }
    clients = {split: count for split, (count, _) in counts.items()}
    rows = sum(count or 0 for _, count in counts.values())
    # as many clients a block as have so many rows on average
    size = max(1, min(_BLOCK_ROWS * sum(clients.values()) // max(rows, 1), _MOST_CLIENTS))

    def all_records() -> Iterator[Record]:
        return itertools.chain.from_iterable(_records(databases, clients, size))

    found = read(all_records, str(next(iter(paths.values()))))

    def blocks(start: int) -> Iterator[Block]:
        for records in _records(databases, clients, size, start):
            yield joined([*found.pieces(records)])

    return Opened(blocks, found.facts, rows)


def _records(
    databases: Mapping[str, Database], clients: Mapping[str, int], size: int, start: int = 0
) -> Iterator[list[Record]]:
    """Yields the records of `size` clients at once, but the first `start` times."""
    for split, database in databases.items():
        skipped = min(start, -(-clients[split] // size))
        start -= skipped
        found = database.later_rows(
            "client_id, data, num_examples", _TABLE, "1", [], skipped * size
        )
        while some := list(itertools.islice(found, size)):
            yield [_record(split, database.path, *row) for row in some]


def _record(split: str, path: pathlib.Path, client, packed: bytes, num_examples: int) -> Record:
    client = client.decode(errors="backslashreplace") if isinstance(client, bytes) else client
    with readable(path):
        features = _unpack(path, packed, f"client {client!r}")
    for name, values in features.items():
        if not isinstance(values, list) and not (isinstance(values, np.ndarray) and values.ndim):
            raise refused(
                path, f"holds no rows as {name!r} of client {client!r}, but {shown(values)}"
            )
    counts = {name: len(values) for name, values in features.items()}
    if wrong := {name: count for name, count in counts.items() if count != num_examples}:
        name, count = next(iter(wrong.items()))
        raise refused(
            path,
            f"says that client {client!r} has {num_examples:,} examples, but {name!r} has "
            f"{count:,}: get it again",
        )
    return Record(split, client, features, f"{path}, client {client!r}")


def _unpack(path: pathlib.Path, packed: bytes, whose: str) -> dict[str, Any]:
    import msgpack

    unpacker = zlib.decompressobj()
    content = unpacker.decompress(packed, _MOST_BYTES)
    if not unpacker.eof:
        raise EOFError(f"client data end early, or are larger than {_MOST_BYTES:,} bytes")
    try:
        features = msgpack.unpackb(content, ext_hook=_extension, raw=False)
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise refused(path, f"holds no msgpack of arrays of {whose} ({error})") from None
    if not isinstance(features, dict) or not features:
        raise refused(path, f"holds no features of {whose}")
    return features


def _extension(kind: int, content: bytes) -> np.ndarray | list[str]:
    import msgpack

    shape, *rest = msgpack.unpackb(content, raw=True)
    if kind == _TEXTS:
        (texts,) = rest
        return [text.decode() for text in texts]
    if kind != _ARRAY:
        raise ValueError(f"an extension of the unknown type {kind}")
    dtype, values = rest
    return np.frombuffer(values, np.dtype(dtype.decode())).reshape(shape)
