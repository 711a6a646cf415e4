"""Finds the files of TensorFlow Federated's data sets, and reads them into the cache."""

from __future__ import annotations

import collections
import dataclasses
import itertools
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from fljax.core.data_files import missing_files, resolve_data_dir
from fljax.data.dataset import FederatedDataset, Partition, Split, offsets_of
from fljax.data.examples import ArrayExamples
from fljax.data.readers.blocks import Block, Opened, Reading, skipping
from fljax.data.readers.cache import Cache, cached
from fljax.data.readers.gathering import Piece
from fljax.data.readers.records import Reader, Record
from fljax.data.readers.tff import open_hdf5, open_sqlite

# From a record of the files to rows of the data set.
Rows = Callable[[Record], Piece]


def tff_cache(
    name: str,
    database: str,
    hdf5: Mapping[str, str],
    splits: Mapping[str, str],
    rows: Rows,
    *,
    options: Mapping[str, Any],
    files: Mapping[str, pathlib.Path] | None = None,
    limit: int | None = None,
    data_dir=None,
    cache_dir=None,
) -> Cache:
    """Returns a data set of TensorFlow Federated's from the cache, which is built if need be.

    Args:
      name: Of the data set, and of its folder in the data directory.
      database: Name of its database, without what packed it.
      hdf5: {split: name of its HDF5 file}, read where the database is not there; may be empty.
      splits: {split: its name in the database}.
      rows: From a record to rows.
      options: What rows depend on, as JSON can hold it.
      files: {what for: path} of others that rows depend on.
      limit: Rows that are kept of each client that trains, the first ones; None: all.
      data_dir: See `fljax.core.data_files.resolve_data_dir`.
      cache_dir: See `fljax.data.readers.cache.cached`.

    Raises:
      FileNotFoundError: If the files are missing.
      ValueError: If one is truncated, corrupt, or not what was expected.
    """
    root = resolve_data_dir(data_dir)
    paths = _paths(name, database, hdf5, root)

    def read(records, where) -> Reader:
        del records, where
        return Reader(lambda found: (rows(record) for record in found), {})

    def opened() -> Opened:
        if len(paths) == 1:
            found = open_sqlite(paths["train"], read, splits)
        else:
            found = open_hdf5(paths, read)
        return found if limit is None else _limited(found, limit)

    said = {"source": name, "splits": dict(splits), "limit": limit, **options}
    inputs = [*paths.values(), *(files or {}).values()]
    return cached(Reading("tff", inputs, said, opened), cache_dir)


def with_few_test_rows(dataset: FederatedDataset, most: int | None) -> FederatedDataset:
    """Returns the data set with so many rows in each of `test` and `held_out` at most.

    Args:
      dataset: Whose test rows may be on disk.
      most: Rows that are kept, at even distances; None: all.
    """
    if most is None:
        return dataset
    kept = {role: _few(getattr(dataset, role), most) for role in ("test", "held_out")}
    return dataclasses.replace(dataset, **kept)


def _few(split: Split | None, most: int) -> Split | None:
    if split is None or split.num_rows <= most:
        return split
    places = np.arange(most) * split.num_rows // most
    if split.partition is None:
        return Split(
            ArrayExamples(jax.tree.map(lambda v: np.asarray(v[places]), split.examples.arrays))
        )
    partition = split.partition
    rows, owners = partition.all_rows()[places], partition.owners()[places]
    sizes = np.bincount(owners, minlength=partition.num_clients)
    return Split(split.examples, Partition(offsets_of(sizes), rows))


def _limited(found: Opened, limit: int) -> Opened:
    """Returns blocks with so many rows of each client that trains at most, the first ones."""

    def blocks() -> Iterator[Block]:
        seen: collections.Counter = collections.Counter()
        for block in found.blocks(0):
            if block.get("split", "train") != "train":
                yield block
                continue
            ids, number = np.unique(block["client"], return_inverse=True)
            order = np.argsort(number, kind="stable")
            counts = np.bincount(number)
            first = np.cumsum(counts) - counts
            rank = np.empty(len(number), np.int64)
            rank[order] = np.arange(len(number)) - first[number[order]]
            kept = rank + np.array([seen[client] for client in ids.tolist()])[number] < limit
            seen.update(dict(zip(ids.tolist(), counts.tolist(), strict=True)))
            yield {
                name: column if name == "split" else column[kept] for name, column in block.items()
            }

    return Opened(skipping(blocks), found.facts)


def _paths(name: str, database: str, hdf5: Mapping[str, str], root: pathlib.Path):
    """Returns {split: path} of what is there: the database as "train", else the HDF5 files."""
    folders = (root / name, root)  # the latter is where `data.download` puts files
    for folder, packed in itertools.product(folders, ("", ".lzma", ".xz")):
        if (path := folder / f"{database}{packed}").is_file():
            return {"train": path}
    for folder in folders:
        paths = {split: folder / file for split, file in hdf5.items()}
        if paths and all(path.is_file() for path in paths.values()):
            return paths
    also = f"data.download('{database}.lzma') fetches it."
    if hdf5:
        also += f" Or, to be read by h5py: {', '.join(f'{name}/{file}' for file in hdf5.values())}"
    raise FileNotFoundError(missing_files(name, [f"{name}/{database}.lzma"], root, also))
