"""Refuses columns whose texts are no categories: numbers with a few odd texts, dates, ids."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from fljax.core.archives import refused
from fljax.data.readers.columns import is_number

# Different numbers that codes, such as grades, rarely have; the share of rows that may be odd.
_MOST_GRADES, _FEW_ODD = 10, 0.01
# Different texts that any column may have, however few rows there are.
_FEW_KINDS = 50
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+")
_DATE = re.compile(
    r"\d{4}[-/.]\d{1,2}[-/.]\d{1,2}([T ]\d.*)?|\d{1,2}[-/.]\d{1,2}[-/.]\d{2,4}( \d.*)?"
)


class Odd(NamedTuple):
    """The first value of a column that is no number."""

    path: Path
    row: int
    value: str


def check_no_numbers(name: str, counts: Mapping[str, int], odd: Odd) -> None:
    """Refuses texts that are dates, or numbers but for a few, in a file that knows no types.

    Args:
      name: Of the column.
      counts: {text of training rows: how often it is there}.
      odd: Why the column is not one of numbers.

    Raises:
      ValueError: With the odd value's place, and what to do.
    """
    numbers = {text: count for text, count in counts.items() if is_number(text)}
    others = [odd.value, *(text for text in counts if text not in numbers)]
    where = f"row {odd.row}, column {name!r}: this is {odd.value!r}, "
    if all(_DATE.fullmatch(text) for text in others):
        raise refused(
            odd.path,
            f"{where}a date, which is no feature: name the others as features, or make numbers of "
            "it, such as days",
        )
    if all(_DECIMAL_COMMA.fullmatch(text) for text in others):
        raise refused(odd.path, f"{where}a number with a decimal comma: write it with a point")
    rows, total = sum(numbers.values()), sum(counts.values())
    is_mostly = 2 * rows > total and 2 * len(numbers) > len(counts)
    if is_mostly and (len(numbers) > _MOST_GRADES or total - rows <= _FEW_ODD * total):
        raise refused(
            odd.path,
            f"{where}which is no number, as {rows:,} of {total:,} values are: mend it; if it "
            f"stands for a missing value, name it in null_values (such as ['', {odd.value!r}]) and "
            "say by missing what that becomes; if all are names, write them as texts ('a1')",
        )


def check_bounded(path: Path, name: str, counts: Mapping[str, int]) -> None:
    """Refuses a column with a text of its own for every other row: each would be a feature.

    Args:
      path: Of the file, for messages.
      name: Of the column.
      counts: {text of training rows: how often it is there}.

    Raises:
      ValueError: Says what to do.
    """
    total = sum(counts.values())
    if len(counts) > max(_FEW_KINDS, total / 2):
        raise refused(
            path,
            f"column {name!r} has {len(counts):,} different values in {total:,} rows, such as "
            f"{next(iter(counts))!r}, and each would be a feature: leave it out of features, or "
            "give encoding='codes'",
        )
