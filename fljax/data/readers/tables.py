"""Reads tables of rows batch by batch: CSV, Parquet, Arrow and NumPy files, through pyarrow.

A table is some files whose rows belong to one split each. All of them have the same columns. A
column of a batch is a pyarrow array, or a NumPy array where a row of it is an array itself.
"""

from __future__ import annotations

import contextlib
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fljax.core.archives import refused, whole

# Rows of a batch, and bytes where rows are large.
_ROWS, _BYTES = 1 << 16, 16 << 20
_CSV_BYTES = 4 << 20
# What stands in CSV files for a value that is not there.
NULL_VALUES = ("", "NA", "N/A", "n/a", "NaN", "nan", "null", "NULL", "None", "?")
_AGAIN = "write it again, or get it again"


class Batch(NamedTuple):
    """Rows of one file.

    Attributes:
      split: "train" or "test".
      path: Of the file.
      first: The row of the file with which the batch begins, 1 being the first.
      columns: {column: array of R values}.
    """

    split: str
    path: Path
    first: int
    columns: Mapping[str, Any]

    @property
    def num_rows(self) -> int:
        return len(next(iter(self.columns.values())))


class Table(NamedTuple):
    """Files with columns of the same names.

    Attributes:
      files: [(split, path)].
      columns: {column: "number", "integer", "truth", "text", "vector", or "unknown" where each
        value is a text that may be anything}; another pyarrow type by its own name.
      read: (columns, start) -> batches of these columns, but the first `start`.
      rows: How many rows there are; None where one would have to read them.
    """

    files: Sequence[tuple[str, Path]]
    columns: Mapping[str, str]
    read: Callable[[Sequence[str], int], Iterator[Batch]]
    rows: int | None = None


Files = Sequence[tuple[str, Path]]


def csv_table(
    files: Files,
    delimiter: str = ",",
    column_names: Sequence[str] | None = None,
    null_values: Sequence[str] = NULL_VALUES,
) -> Table:
    """Opens CSV files, plain or compressed.

    Args:
      files: [(split, path)].
      delimiter: Between two values.
      column_names: Of files whose first line is a row already.
      null_values: Texts that stand for a missing value.

    Raises:
      ValueError: If a file is no CSV, or has other columns than the first.
    """
    pa, pacsv = _pyarrow("pyarrow"), _pyarrow("pyarrow.csv")
    import pyarrow.compute as pc

    def opened(path: Path, kept: Sequence[str] | None = None):
        kinds = None if kept is None else {name: pa.string() for name in kept}
        return pacsv.open_csv(
            str(path),
            # one thread counts lines, and blocks come in the same order
            read_options=pacsv.ReadOptions(
                use_threads=False, block_size=_CSV_BYTES, column_names=column_names or None
            ),
            parse_options=pacsv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
            convert_options=pacsv.ConvertOptions(
                column_types=kinds, include_columns=kept, strings_can_be_null=False
            ),
        )

    def names(path: Path) -> list[str]:
        with _refusing(path, "CSV"):
            return opened(path).schema.names

    def values(column):
        trimmed = pc.utf8_trim_whitespace(column)
        return pc.if_else(pc.is_in(trimmed, pa.array(null_values, pa.string())), None, trimmed)

    def read(kept: Sequence[str], start: int) -> Iterator[Batch]:
        for split, path in files:
            first = 1
            with _refusing(path, "CSV"):
                for batch in opened(path, [*kept]):
                    if start > 0:
                        start -= 1
                    else:
                        columns = {name: values(batch.column(name)) for name in kept}
                        yield Batch(split, path, first, columns)
                    first += batch.num_rows

    columns = _same_columns([(path, names(path)) for _, path in files])
    return Table(files, {name: "unknown" for name in columns}, read)


def parquet_table(files: Files) -> Table:
    """Opens Parquet files; a killed reading goes on at the row group where it ended.

    Raises:
      ValueError: If a file is no Parquet, or has other columns than the first.
    """
    parquet = _pyarrow("pyarrow.parquet")

    def opened(path: Path):
        with _refusing(path, "Parquet"):
            return parquet.ParquetFile(path)

    def groups(file) -> list[tuple[int, int]]:
        """Returns (rows, rows of a batch) of each row group."""
        found = [file.metadata.row_group(number) for number in range(file.num_row_groups)]
        return [(g.num_rows, _rows_of(g.total_byte_size / max(g.num_rows, 1))) for g in found]

    def read(kept: Sequence[str], start: int) -> Iterator[Batch]:
        for split, path in files:
            first = 1
            with opened(path) as file, _refusing(path, "Parquet"):
                for number, (rows, size) in enumerate(groups(file)):
                    if start >= -(-rows // size):
                        start -= -(-rows // size)
                        first += rows
                        continue
                    for batch in file.iter_batches(size, [number], [*kept]):
                        if start > 0:
                            start -= 1
                        else:
                            yield Batch(split, path, first, _columns(batch, kept))
                        first += batch.num_rows

    schemas, rows = [], 0
    for _, path in files:
        with opened(path) as file:
            schemas.append((path, file.schema_arrow))
            rows += file.metadata.num_rows
    return Table(files, _kinds(schemas), read, rows)


def arrow_table(files: Files) -> Table:
    """Opens Arrow IPC files (Feather version 2), or streams.

    Raises:
      ValueError: If a file is no Arrow, or has other columns than the first.
    """
    pa = _pyarrow("pyarrow")

    @contextlib.contextmanager
    def opened(path: Path):
        with _refusing(path, "Arrow"), pa.OSFile(str(path)) as file:
            start = file.read(6)
            file.seek(0)
            yield pa.ipc.open_file(file) if start == b"ARROW1" else pa.ipc.open_stream(file)

    def batches(reader) -> Iterator[Any]:
        if not hasattr(reader, "num_record_batches"):
            yield from reader
            return
        for number in range(reader.num_record_batches):
            yield reader.get_batch(number)

    def read(kept: Sequence[str], start: int) -> Iterator[Batch]:
        for split, path in files:
            first = 1
            with opened(path) as reader:
                for large in batches(reader):
                    size = _rows_of(large.nbytes / max(large.num_rows, 1))
                    for place in range(0, large.num_rows, size):
                        batch = large.slice(place, size)
                        if start > 0:
                            start -= 1
                        else:
                            yield Batch(split, path, first, _columns(batch, kept))
                        first += batch.num_rows

    schemas = []
    for _, path in files:
        with opened(path) as reader:
            schemas.append((path, reader.schema))
    return Table(files, _kinds(schemas), read)


def numpy_table(files: Files) -> Table:
    """Opens `.npz` archives, each of whose arrays is a column, part by part.

    Raises:
      ValueError: If a file is no such archive, or has other columns than the first.
    """
    pa = _pyarrow("pyarrow")

    def header(archive: zipfile.ZipFile, member: str, path: Path):
        """Returns (file at the first value, shape, type) of an array."""
        file = archive.open(member)
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0
        shape, fortran, dtype = (
            read if version == (1, 0) else np.lib.format.read_array_header_2_0
        )(file)
        if dtype.hasobject:
            raise refused(path, f"holds Python objects ({member}): store numbers or texts")
        if not shape or (fortran and len(shape) > 1):
            raise refused(
                path,
                f"holds {member} of shape {list(shape)}, which is not row after row: store "
                "np.ascontiguousarray of it",
            )
        return file, shape, dtype.newbyteorder("=") if dtype.isnative else dtype

    def described(path: Path) -> tuple[dict[str, str], int]:
        """Returns ({column: kind}, rows)."""
        with _refusing(path, "npz"), zipfile.ZipFile(path) as archive:
            found = {n.removesuffix(".npy"): header(archive, n, path) for n in archive.namelist()}
        lengths = {name: shape[0] for name, (_, shape, _) in found.items()}
        if len(set(lengths.values())) != 1:
            raise refused(path, f"holds arrays of unlike length, {lengths}: one value a row")
        kinds = {"b": "truth", "i": "integer", "u": "integer", "f": "number", "U": "text"}
        return {
            name: "vector" if len(shape) > 1 else kinds.get(dtype.kind, str(dtype))
            for name, (_, shape, dtype) in found.items()
        }, next(iter(lengths.values()))

    def read(kept: Sequence[str], start: int) -> Iterator[Batch]:
        for split, path in files:
            with _refusing(path, "npz"), zipfile.ZipFile(path) as archive:
                found = {name: header(archive, f"{name}.npy", path) for name in kept}
                rows = next(iter(found.values()))[1][0]
                widths = [t.itemsize * int(np.prod(s[1:])) for _, s, t in found.values()]
                size = _rows_of(sum(widths))
                for place in range(0, rows, size):
                    count = min(size, rows - place)
                    columns = {
                        name: _part(file, (count, *shape[1:]), dtype, path)
                        for name, (file, shape, dtype) in found.items()
                    }
                    if start > 0:
                        start -= 1
                        continue
                    yield Batch(split, path, place + 1, {
                        name: pa.array(values) if values.ndim == 1 else values
                        for name, values in columns.items()
                    })  # fmt: skip

    known = [(path, *described(path)) for _, path in files]
    _same_columns([(path, list(columns)) for path, columns, _ in known])
    return Table(files, known[0][1], read, sum(rows for *_, rows in known))


def _part(file, shape: tuple[int, ...], dtype: np.dtype, path: Path) -> np.ndarray:
    """Returns the next rows of an array in a file."""
    size = int(np.prod(shape)) * dtype.itemsize
    data = file.read(size)
    if len(data) != size:
        raise EOFError("an array ends early")
    return np.frombuffer(data, dtype).reshape(shape).astype(dtype.newbyteorder("="), copy=False)


def _rows_of(row_bytes: float) -> int:
    """Returns how many rows make a batch."""
    return max(1, min(_ROWS, int(_BYTES // max(row_bytes, 1))))


def _columns(batch, kept: Sequence[str]) -> dict[str, Any]:
    return {name: batch.column(name) for name in kept}


def _kinds(schemas: Sequence[tuple[Path, Any]]) -> dict[str, str]:
    """Returns {column: kind} of files that have a schema."""
    import pyarrow.types as of

    def kind(dtype) -> str:
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
        while of.is_list(dtype) or of.is_large_list(dtype) or of.is_fixed_size_list(dtype):
            dtype = dtype.value_type
            if of.is_integer(dtype) or of.is_floating(dtype) or of.is_boolean(dtype):
                return "vector"
        return str(dtype)

    _same_columns([(path, schema.names) for path, schema in schemas])
    kinds = {field.name: kind(field.type) for field in schemas[0][1]}
    for path, schema in schemas[1:]:
        for field in schema:
            if kind(field.type) != kinds[field.name]:
                raise refused(
                    path,
                    f"holds {field.name!r} as {field.type}, and {schemas[0][0]} as "
                    f"{kinds[field.name]}: write both alike",
                )
    return kinds


def _same_columns(files: Sequence[tuple[Path, Sequence[str]]]) -> Sequence[str]:
    """Returns the names of the columns; refuses names that are there twice, and other names."""
    path, names = files[0]
    if twice := next((name for name in names if list(names).count(name) > 1), None):
        raise refused(path, f"has two columns {twice!r}: name them differently")
    for other, theirs in files[1:]:
        if odd := sorted({*names} ^ {*theirs}):
            has, lacks = (path, other) if odd[0] in names else (other, path)
            raise refused(lacks, f"has no column {odd[0]!r}, which {has} has: give both the same")
    return names


def _pyarrow(module: str):
    try:
        import importlib

        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError("Tables are read by pyarrow: pip install pyarrow") from error


@contextlib.contextmanager
def _refusing(path: Path, what: str) -> Iterator[None]:
    """Turns what pyarrow says of a file into one line with the file, the place and the remedy."""
    pa = _pyarrow("pyarrow")
    try:
        with whole(path, _AGAIN):
            yield
    except (FileNotFoundError, PermissionError):
        raise
    except (pa.ArrowException, ValueError) as error:
        cause = error.__cause__ if isinstance(error.__cause__, pa.ArrowException) else error
        if not isinstance(cause, pa.ArrowException):
            raise
        said = " ".join(str(cause).split())
        if found := re.search(r"Row #(\d+): Expected (\d+) columns, got (\d+)", said):
            line, wanted, got = found.groups()
            raise refused(
                path,
                f"has {got} values in line {line}, not {wanted}: mend that line, or quote "
                "values that hold the delimiter",
            ) from error
        if "UTF8" in said:
            raise refused(path, f"is not UTF-8 ({said[:120]}): write it as UTF-8") from error
        raise refused(
            path, f"is truncated, corrupt or no {what} file ({said[:160]}): {_AGAIN}"
        ) from error  # noqa: E501
