"""Gathers what readers find, client by client or row by row, into blocks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fljax.data.readers.blocks import Block
from fljax.data.values import first_unheld, place_of

_MOST_ROWS, _MOST_BYTES = 100_000, 16 << 20


class Piece(NamedTuple):
    """Some rows of one split.

    Attributes:
      split: "train", "val" or "test".
      client: The client's id, an integer or a text, or an array of one for each row.
      columns: {name: array[rows, ...]}, as in a block.
      where: What people call the place, for messages.
    """

    split: str
    client: Any
    columns: Mapping[str, np.ndarray]
    where: str


def gathered(pieces: Iterable[Piece]) -> Iterator[Block]:
    """Yields blocks of some 100,000 rows or 16 MB, each of one split.

    Raises:
      ValueError: As for `joined`.
    """
    held: list[Piece] = []
    rows = size = 0
    first = None
    for piece in pieces:
        first = first or piece
        _check_alike(first, piece)
        if held and (piece.split != held[0].split or rows >= _MOST_ROWS or size >= _MOST_BYTES):
            yield joined(held)
            held, rows, size = [], 0, 0
        held.append(piece)
        rows += rows_of(piece)
        size += sum(column.nbytes for column in piece.columns.values())
    if held:
        yield joined(held)


def joined(pieces: Sequence[Piece]) -> Block:
    """Returns one block of pieces of one split.

    Raises:
      ValueError: If pieces differ in the names, types or shapes of their columns, or a column has
        another number of rows than the others.
    """
    for piece in pieces:
        _check_alike(pieces[0], piece)
    ids = [
        piece.client if isinstance(piece.client, np.ndarray) else np.full(rows, piece.client)
        for piece, rows in zip(pieces, map(rows_of, pieces), strict=True)
    ]
    names = pieces[0].columns
    columns = {name: np.concatenate([piece.columns[name] for piece in pieces]) for name in names}
    _check_held(pieces, columns)
    return {"split": pieces[0].split, "client": np.concatenate(ids), **columns}


def _check_held(pieces: Sequence[Piece], columns: Mapping[str, np.ndarray]) -> None:
    """Raises ValueError where a number is not one that JAX holds; says whose it is."""
    for name, values in columns.items():
        if values.dtype.kind in "biuf" and (found := first_unheld(values)) is not None:
            place, why = found
            ends = np.cumsum([*map(rows_of, pieces)])
            number = int(np.searchsorted(ends, place[0], "right"))
            row = place[0] - (ends[number - 1] if number else 0)
            raise ValueError(
                f"{pieces[number].where}: {place_of(name, (row, *place[1:]))} is {why}"
            )


def rows_of(piece: Piece) -> int:
    """Returns how many rows a piece has.

    Raises:
      ValueError: If its columns differ in it.
    """
    counts = {name: len(column) for name, column in piece.columns.items()}
    if len(set(counts.values())) > 1:
        shown = ", ".join(f"{name} {count:,}" for name, count in counts.items())
        raise ValueError(f"{piece.where}: its columns differ in their number of rows ({shown})")
    return next(iter(counts.values()))


def _check_alike(first: Piece, piece: Piece) -> None:
    wanted, found = _rows(first), _rows(piece)
    if wanted != found:
        name = next(n for n in [*wanted, *found] if wanted.get(n) != found.get(n))
        raise ValueError(
            f"{piece.where}: a row of {name} is {_shown(found.get(name))}, but "
            f"{_shown(wanted.get(name))} in {first.where}: all rows must be of one type and shape"
        )


def _rows(piece: Piece) -> dict[str, tuple]:
    """Returns {column: (type, shape of a row)}; all texts are of one type."""
    return {
        name: ("U" if column.dtype.kind == "U" else column.dtype, column.shape[1:])
        for name, column in piece.columns.items()
    }


def _shown(row: tuple | None) -> str:
    if row is None:
        return "missing"
    kind, shape = row
    return f"{'text' if kind == 'U' else kind}{list(shape)}"
