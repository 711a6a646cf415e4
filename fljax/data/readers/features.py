"""Makes examples of the rows of a table: features, labels or targets, and whose they are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from fljax.data.readers import columns as read
from fljax.data.readers.blocks import Block, Opened
from fljax.data.readers.narrowing import Columns, check_differences, narrowed
from fljax.data.readers.survey import Roles, Survey, is_test, surveyed
from fljax.data.readers.tables import Batch, Table


def opened(table: Table, roles: Roles) -> Opened:
    """Returns the blocks of a table; see `fljax.data.readers.blocks`.

    Raises:
      ValueError: If a column cannot be what it is for.
    """
    survey = surveyed(table, roles)
    # of a batch come a block of training rows and one of test rows, be they empty
    parts = 1 if survey.test_clients is None else 2

    def blocks(start: int) -> Iterator[Block]:
        shape, is_whole = None, not start
        seen = _seen(roles, survey)
        for batch in table.read(roles.columns, start // parts):
            made = _blocks(batch, roles, survey, seen)
            if shape not in (None, shape := made[0]["x"].shape[1:]):
                raise read.refused_at(
                    batch, roles.features[0], 0, f"is of the shape {list(shape)}, unlike those "
                    "before it: pad or cut them to one length",
                )  # fmt: skip
            yield from made[start % parts :]
            start = 0
        if is_whole:  # else nothing is known of the rows before
            for columns in seen:
                check_differences(columns, table.files[0][1])

    facts = {"features": names(roles, survey), "dropped": dict(survey.dropped)}
    return Opened(blocks, facts, table.rows)


def names(roles: Roles, survey: Survey) -> list[str]:
    """Returns the names of features; those of a column of arrays have none."""
    if is_array(roles, survey):
        return []
    found = []
    for name in roles.features:
        if name in survey.categories and roles.encoding == "one_hot":
            found += [f"{name}={text}" for text in survey.categories[name]]
        else:
            found.append(name)
    return found


def is_array(roles: Roles, survey: Survey) -> bool:
    """Returns whether one column of arrays is all that there is of features."""
    return [survey.kinds[name] for name in roles.features] == ["vector"]


def _seen(roles: Roles, survey: Survey) -> tuple[Columns, Columns]:
    """Returns what is to be seen of features and of targets."""
    return Columns(names(roles, survey)), Columns(roles.targets)


def _blocks(batch: Batch, roles: Roles, survey: Survey, seen) -> list[Block]:
    """Returns the block of a batch, or its training and its test rows."""
    batch = _complete(batch, roles, survey)
    block: dict[str, Any] = {"split": batch.split, "client": np.zeros(batch.num_rows, np.int64)}
    if roles.client is not None:
        block["client"] = read.ids(batch, roles.client, survey.kinds[roles.client])
    if roles.subject is not None:
        block["subject"] = read.ids(batch, roles.subject, survey.kinds[roles.subject])
    for name in roles.row_groups:
        block[f"groups/{name}"] = read.ids(batch, name, "text")
    for name in roles.groups:
        block[f"client_groups/{name}"] = read.ids(batch, name, "text")
    block["x"] = _x(batch, roles, survey, seen[0])
    if roles.label is not None:
        block["y"] = read.classes(batch, roles.label, survey.kinds[roles.label])
    else:
        block["y"] = _y(batch, roles, survey, seen[1])
    if survey.test_clients is None:
        return [block]
    tested = is_test(block["client"], survey.test_clients)
    return [
        {name: values if name == "split" else values[rows] for name, values in block.items()}
        | {"split": split}
        for split, rows in (("train", ~tested), ("test", tested))
    ]


def _complete(batch: Batch, roles: Roles, survey: Survey) -> Batch:
    """Returns the rows of a batch in which nothing is missing that has no remedy."""
    import pyarrow as pa

    needed = [name for name in roles.columns if survey.fills.get(name) is None]
    lacks = read.missing(batch, needed)
    if not lacks.any():
        return batch
    if roles.missing == "drop":
        kept = ~lacks.any(1)
        columns = {
            name: column[kept] if isinstance(column, np.ndarray) else column.filter(pa.array(kept))
            for name, column in batch.columns.items()
        }
        return batch._replace(columns=columns)
    row, place = np.argwhere(lacks)[0].tolist()
    name, is_array = needed[place], survey.kinds[needed[place]] == "vector"
    remedy = "give missing='drop', or drop or fill it beforehand"
    if name in roles.features and not is_array:
        remedy = "give missing='drop', 'mean', 'most_frequent', or a number that it becomes"
    what = "is missing, or a value inside it" if is_array else "is missing"
    raise read.refused_at(batch, name, row, f"{what}: {remedy}")


def _x(batch: Batch, roles: Roles, survey: Survey, seen: Columns) -> np.ndarray:
    """Returns [R, features], or the arrays of the one column that has such."""
    if is_array(roles, survey):
        return read.vectors(batch, roles.features[0])
    parts = [_feature(batch, name, roles, survey) for name in roles.features]
    return narrowed(seen, batch, np.concatenate(parts, 1))


def _y(batch: Batch, roles: Roles, survey: Survey, seen: Columns) -> np.ndarray:
    """Returns [R] or [R, targets], or the arrays of the one column that has such."""
    if [survey.kinds[name] for name in roles.targets] == ["vector"]:
        return read.vectors(batch, roles.targets[0])
    y = np.stack([read.numbers(batch, name) for name in roles.targets], 1)
    y = narrowed(seen, batch, y)
    return y if len(roles.targets) > 1 else y[:, 0]


def _feature(batch: Batch, name: str, roles: Roles, survey: Survey) -> np.ndarray:
    """Returns float64[R, K] of one column."""
    fill, kind = survey.fills.get(name), survey.kinds[name]
    if kind == "text":
        place = {text: number for number, text in enumerate(survey.categories[name])}
        coded = read.texts(batch, name).dictionary_encode()
        known = [place.get(text, len(place)) for text in coded.dictionary.to_pylist()]
        codes = np.array([*known, place.get(fill, len(place))])
        codes = codes[coded.indices.fill_null(len(known)).to_numpy(zero_copy_only=False)]
        if roles.encoding == "codes":
            return codes[:, None].astype(np.float64)
        return (codes[:, None] == np.arange(len(place))).astype(np.float64)
    values = read.truths(batch, name) if kind == "truth" else read.numbers(batch, name)
    if fill is not None:
        values = np.where(np.isnan(values), fill, values)
    mean, deviation = survey.moments.get(name, (0.0, 1.0))
    return ((values - mean) / deviation)[:, None]
