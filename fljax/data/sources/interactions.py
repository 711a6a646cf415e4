"""Tables of who chose what, as data sets for recommendation: CSV and Parquet files of one's own."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fljax.core.archives import refused
from fljax.core.names import nearest
from fljax.data.dataset import FederatedDataset
from fljax.data.interactions import from_interactions
from fljax.data.readers import columns as read
from fljax.data.readers.arrow_tables import parquet_table
from fljax.data.readers.csv_tables import csv_table
from fljax.data.readers.tables import Files, Table
from fljax.data.readers.tabular import files_at

_PARQUET, _CSV = (".parquet",), (".csv", ".csv.gz", ".dat", ".tsv", ".data")


def interactions(
    path: str | Sequence[str],
    *,
    user: str = "user",
    item: str = "item",
    time: str | None = None,
    delimiter: str = ",",
    column_names: Sequence[str] | None = None,
    held_out: int = 1,
    longest: int | None = None,
    data_dir=None,
    **clients,
) -> FederatedDataset:
    """Reads a table with a row for each choice, such as MovieLens; each user is a client.

    The whole table is held in memory, as texts: some 100 bytes a row. `user = "userId"`,
    `item = "movieId"`, `time = "timestamp"` reads the `ratings.csv` of MovieLens; for its `u.data`,
    delimiter = "\\t" and column_names = ["user", "item", "rating", "time"].

    Args:
      path: Parquet or CSV files, as for the source `csv`.
      user, item: The columns of ids.
      time: The column of numbers that orders the choices of a user; their order in the file if
        None.
      delimiter, column_names: Of CSV files, as for the source `csv`.
      held_out, longest: As in `fljax.data.from_interactions`.
      data_dir: See `fljax.core.data_files.resolve_data_dir`.
      **clients: num_clients, seed, held_out_fraction and others, as in `from_arrays`.

    Raises:
      FileNotFoundError: If there is no such file.
      ValueError: If a file is damaged, or a column or a value is missing.

    Example:
      >>> dataset = data.interactions(  # doctest: +SKIP
      ...     "ratings.csv", user="userId", item="movieId", time="timestamp"
      ... )
    """
    files: Files = [("train", file) for file in files_at("path", path, data_dir, _CSV + _PARQUET)]
    names = [user, item] if time is None else [user, item, time]
    found = _opened(files, delimiter, column_names)
    _check_columns(files[0][1], found, names)
    parts = []
    for batch in found.read(names, 0):
        absent = read.missing(batch, names)
        if absent.any():
            row, place = np.argwhere(absent)[0]
            raise read.refused_at(batch, names[place], row, "is missing: leave such rows out")
        columns = [np.asarray(read.texts(batch, name).to_pylist()) for name in (user, item)]
        parts.append([*columns, *(read.numbers(batch, name) for name in names[2:])])
    if not parts:
        raise refused(files[0][1], "has no rows")
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    return from_interactions(
        *columns, held_out=held_out, longest=longest, name="interactions", **clients
    )


def _opened(files: Files, delimiter: str, column_names: Sequence[str] | None) -> Table:
    """Returns the table of files that are of one format."""
    are_parquet = {path.suffix in _PARQUET for _, path in files}
    if len(are_parquet) > 1:
        raise ValueError(
            f"path names Parquet and CSV files, such as {os.fspath(files[0][1])!r}: read one kind"
        )
    return parquet_table(files) if are_parquet.pop() else csv_table(files, delimiter, column_names)


def _check_columns(path: Path, found: Table, names: Sequence[str]) -> None:
    """Raises ValueError for a column that a table has not."""
    for name in names:
        if name not in found.columns:
            near = nearest(name, found.columns)
            meant = f"did you mean {near!r}? " if near else ""
            has = f"{meant}It has {', '.join(found.columns)}"
            raise refused(path, f"has no column {name!r}; name user, item and time: {has}")
