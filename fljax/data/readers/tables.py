"""Tables: files of rows and columns that are read batch by batch, whatever their format.

A table is some files whose rows belong to one split each. All of them have the same columns. A
column of a batch is a pyarrow array, or a NumPy array where a row of it is an array itself.
"""

from __future__ import annotations

import contextlib
import importlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fljax.core import optional
from fljax.core.archives import refused, whole

# Rows of a batch, and bytes where rows are large.
_ROWS, _BYTES = 1 << 16, 16 << 20
_AGAIN = "write it again, or get it again"

Files = Sequence[tuple[str, Path]]


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
        value is a text that may be anything}; another type by its own name.
      read: (columns, start) -> batches of these columns, but the first `start`.
      rows: How many rows there are; None where one would have to read them.
    """

    files: Files
    columns: Mapping[str, str]
    read: Callable[[Sequence[str], int], Iterator[Batch]]
    rows: int | None = None


def rows_of_batch(row_bytes: float) -> int:
    """Returns how many rows make a batch."""
    return max(1, min(_ROWS, int(_BYTES // max(row_bytes, 1))))


def same_columns(files: Sequence[tuple[Path, Mapping[str, str]]]) -> dict[str, str]:
    """Returns {column: kind} of files.

    Args:
      files: [(path, {column: kind})].

    Raises:
      ValueError: If a column is not in all of them, or of unlike kinds.
    """
    path, columns = files[0]
    for other, theirs in files[1:]:
        if odd := sorted({*columns} ^ {*theirs}):
            has, lacks = (path, other) if odd[0] in columns else (other, path)
            raise refused(lacks, f"has no column {odd[0]!r}, which {has} has: give both the same")
        if odd := [name for name in columns if columns[name] != theirs[name]]:
            raise refused(
                other,
                f"holds {odd[0]!r} as {theirs[odd[0]]}, and {path} as {columns[odd[0]]}: write "
                "both alike",
            )
    return dict(columns)


def unlike_names(path: Path, names: Sequence[str]) -> Sequence[str]:
    """Returns the names of columns; refuses those that are there twice."""
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise refused(path, f"has two columns {twice!r}: name them differently")
    return names


def pyarrow(module: str = "pyarrow") -> Any:
    """Returns a module of pyarrow."""
    with optional.needed("pyarrow"):
        return importlib.import_module(module)


@contextlib.contextmanager
def reading(path: Path, what: str) -> Iterator[None]:
    """Turns what is raised on a damaged file into one line with the file, the place, the remedy."""
    try:
        with whole(path, _AGAIN):
            yield
    except ValueError as error:
        if not isinstance(error.__cause__, pyarrow().ArrowException):
            raise
        raise refused(path, _said(" ".join(str(error.__cause__).split()), what)) from error


def _said(message: str, what: str) -> str:
    """Returns for people what pyarrow says of a file."""
    if found := re.search(r"Row #(\d+): Expected (\d+) columns, got (\d+)", message):
        line, wanted, got = found.groups()
        return (
            f"has {got} values in line {line}, not {wanted}: mend that line, or quote values that "
            "hold the delimiter"
        )
    if "UTF8" in message:
        return f"is not UTF-8 ({message[:120]}): write it as UTF-8"
    return f"is truncated, corrupt or no {what} file ({message[:160]}): {_AGAIN}"
