"""Reads Parquet and Arrow files batch by batch."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fljax.data.readers.tables import (
    Batch,
    Files,
    Table,
    pyarrow,
    reading,
    rows_of_batch,
    same_columns,
    unlike_names,
)


def parquet_table(files: Files) -> Table:
    """Opens Parquet files; a killed reading goes on at the row group where it ended.

    Raises:
      ValueError: If a file is no Parquet, or has other columns than the first.
    """
    parquet = pyarrow("pyarrow.parquet")

    def opened(path: Path):
        with reading(path, "Parquet"):
            return parquet.ParquetFile(path)

    def read(kept: Sequence[str], start: int) -> Iterator[Batch]:
        for split, path in files:
            first = 1
            with opened(path) as file, reading(path, "Parquet"):
                for number in range(file.num_row_groups):
                    group = file.metadata.row_group(number)
                    size = rows_of_batch(group.total_byte_size / max(group.num_rows, 1))
                    count = -(-group.num_rows // size)
                    if start >= count:
                        start -= count
                        first += group.num_rows
                        continue
                    for batch in file.iter_batches(size, [number], [*kept]):
                        if start > 0:
                            start -= 1
                        else:
                            yield Batch(split, path, first, _columns(batch, kept))
                        first += batch.num_rows

    known, rows = [], 0
    for _, path in files:
        with opened(path) as file:
            known.append((path, _kinds(path, file.schema_arrow)))
            rows += file.metadata.num_rows
    return Table(files, same_columns(known), read, rows)


def arrow_table(files: Files) -> Table:
    """Opens Arrow IPC files (Feather version 2), or streams.

    Raises:
      ValueError: If a file is no Arrow, or has other columns than the first.
    """
    pa = pyarrow()

    @contextlib.contextmanager
    def opened(path: Path):
        with reading(path, "Arrow"), pa.OSFile(str(path)) as file:
            start = file.read(6)
            file.seek(0)
            yield pa.ipc.open_file(file) if start == b"ARROW1" else pa.ipc.open_stream(file)

    def parts(reader) -> Iterator[Any]:
        if not hasattr(reader, "num_record_batches"):
            yield from reader
            return
        for number in range(reader.num_record_batches):
            yield reader.get_batch(number)

    def batches(kept: Sequence[str]) -> Iterator[Batch]:
        for split, path in files:
            first = 1
            with opened(path) as reader:
                for part in parts(reader):
                    size = rows_of_batch(part.nbytes / max(part.num_rows, 1))
                    for place in range(0, part.num_rows, size):
                        columns = _columns(part.slice(place, size), kept)
                        yield Batch(split, path, first + place, columns)
                    first += part.num_rows

    known = []
    for _, path in files:
        with opened(path) as reader:
            known.append((path, _kinds(path, reader.schema)))
    return Table(
        files,
        same_columns(known),
        lambda kept, start: itertools.islice(batches(kept), start, None),
    )


def _columns(batch, kept: Sequence[str]) -> dict[str, Any]:
    return {name: batch.column(name) for name in kept}


def _kinds(path: Path, schema) -> dict[str, str]:
    """Returns {column: kind} of a schema."""
    unlike_names(path, schema.names)
    return {field.name: _kind(field.type) for field in schema}


def _kind(dtype) -> str:
    of = pyarrow("pyarrow.types")
    if of.is_dictionary(dtype):
        dtype = dtype.value_type
    if of.is_boolean(dtype):
        return "truth"
    if of.is_integer(dtype):
        return "integer"
    if of.is_floating(dtype) or of.is_decimal(dtype) or of.is_null(dtype):
        return "number"
    if of.is_string(dtype) or of.is_large_string(dtype) or of.is_string_view(dtype):
        return "text"
    inner = dtype
    while of.is_list(inner) or of.is_large_list(inner) or of.is_fixed_size_list(inner):
        inner = inner.value_type
        if of.is_integer(inner) or of.is_floating(inner) or of.is_boolean(inner):
            return "vector"
    return str(dtype)
