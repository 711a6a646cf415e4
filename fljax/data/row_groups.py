"""Groups of rows: attributes of examples that cut across clients, such as sex or race.

The model does not see them; audits and algorithms that are fair among such groups do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fljax.core.values import shown, wrong

# A value's number is kept in 8 bits.
_MOST_VALUES = 100


def numbered(
    groups: Mapping[str, Sequence] | None,
    groups_test: Mapping[str, Sequence] | None,
    rows: int,
    rows_test: int | None,
) -> tuple[dict[str, tuple[str, ...]], dict | None, dict | None]:
    """Numbers the values of groups of rows, in sorted order.

    Args:
      groups: {name: [rows] numbers or texts}, or None.
      groups_test: The same of the test rows.
      rows: How many training rows there are.
      rows_test: How many test rows, or None without.

    Returns:
      ({name: the text of each value}, {name: int8[rows]}, {name: int8[test rows]}); None for rows
      without groups.

    Raises:
      ValueError: If a name or the number of rows does not fit, or there are too many values.
    """
    if groups is None and groups_test is None:
        return {}, None, None
    for what, given in (("row_groups", groups), ("test_row_groups", groups_test)):
        if not isinstance(given, Mapping | None):
            raise wrong(what, given, "{name: the group of each row}")
    groups, groups_test = groups or {}, groups_test or {}
    if rows_test is not None and groups.keys() != groups_test.keys():
        raise ValueError(
            f"row_groups has {', '.join(groups) or 'nothing'} and test_row_groups "
            f"{', '.join(groups_test) or 'nothing'}: both need the same names"
        )
    if rows_test is None and groups_test:
        raise ValueError("test_row_groups were given without x_test and y_test")
    texts, train, test = {}, {}, {}
    for name in groups:
        own = _of_rows(f"row_groups[{name!r}]", groups[name], rows)
        parts = [own]
        if rows_test is not None:
            parts.append(_of_rows(f"test_row_groups[{name!r}]", groups_test[name], rows_test))
        values, number = np.unique(np.concatenate(parts), return_inverse=True)
        check_values(name, len(values))
        number = number.astype(np.int8)
        texts[name] = tuple(map(str, values.tolist()))
        train[name], test[name] = number[:rows], number[rows:]
    return texts, train, test if rows_test is not None else None


def check_values(name: str, count: int) -> None:
    """Raises ValueError where groups of rows have too many values."""
    if count > _MOST_VALUES:
        raise ValueError(
            f"row_groups[{name!r}] has {count} values, of which {_MOST_VALUES} are the most: put "
            "values together, such as ages in decades"
        )


def _of_rows(what: str, values: Any, rows: int) -> np.ndarray:
    values = np.asarray(values)
    if values.shape != (rows,) or values.dtype.kind not in "iubUS":
        raise ValueError(
            f"{what} = {shown(values)} is {values.dtype}{list(values.shape)}, and must be one "
            f"whole number or text for each of the {rows} rows"
        )
    return values
