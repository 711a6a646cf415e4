"""Reads CSV files batch by batch; every value is a text, until it is known what its column is."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

from fljax.data.readers.tables import (
    Batch,
    Files,
    Table,
    pyarrow,
    reading,
    same_columns,
    unlike_names,
)

# What stands for a value that is not there.
NULL_VALUES = ("", "NA", "N/A", "n/a", "NaN", "nan", "null", "NULL", "None", "?")
_BLOCK_BYTES = 4 << 20


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
    pa, pc, csv = pyarrow(), pyarrow("pyarrow.compute"), pyarrow("pyarrow.csv")
    nulls = pa.array(null_values, pa.string())

    def opened(path: Path, kept: Sequence[str] | None = None):
        kinds = None if kept is None else {name: pa.string() for name in kept}
        return csv.open_csv(
            str(path),
            # one thread counts lines, and blocks come in the same order
            read_options=csv.ReadOptions(
                use_threads=False, block_size=_BLOCK_BYTES, column_names=column_names
            ),
            parse_options=csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
            convert_options=csv.ConvertOptions(
                column_types=kinds, include_columns=kept, strings_can_be_null=False
            ),
        )

    def columns(path: Path) -> dict[str, str]:
        with reading(path, "CSV"):
            names = opened(path).schema.names
        return dict.fromkeys(unlike_names(path, names), "unknown")

    def values(column):
        trimmed = pc.utf8_trim_whitespace(column)
        return pc.if_else(pc.is_in(trimmed, nulls), None, trimmed)

    def batches(kept: Sequence[str]) -> Iterator[Batch]:
        for split, path in files:
            first = 1
            with reading(path, "CSV"):
                for batch in opened(path, [*kept]):
                    yield Batch(split, path, first, {n: values(batch.column(n)) for n in kept})
                    first += batch.num_rows

    return Table(
        files,
        same_columns([(path, columns(path)) for _, path in files]),
        lambda kept, start: itertools.islice(batches(kept), start, None),
    )
