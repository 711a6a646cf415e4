"""Reads a table once to learn what its columns are: types, categories, means, missing values.

Everything that features are made by is of training rows alone.
"""

from __future__ import annotations

import collections
import dataclasses
import warnings
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fljax.core import random
from fljax.core.archives import refused
from fljax.core.names import nearest
from fljax.data.readers import columns as read
from fljax.data.readers.categories import Odd, check_bounded, check_no_numbers
from fljax.data.readers.tables import Batch, Table

# Different texts of a column that are features each, that are numbered, and that are counted.
_MOST_KINDS, _MOST_CODES, _MOST_COUNTED = 1_000, 100_000, 1_000_000
# What a missing value becomes where it depends on the others.
_COUNTED = ("drop", "mean", "most_frequent")
# What stands for a missing text where missing numbers become a number.
MISSING = "missing"


class Roles(NamedTuple):
    """The roles of columns.

    Attributes:
      client, label: Columns, or None.
      targets, features: Columns.
      subject: The column of subjects, or None.
      row_groups, groups: Columns by which metrics of rows, and of clients, are reported.
      missing: "error", "drop", "mean", "most_frequent", or a number.
      encoding: "one_hot" or "codes".
      standardize: Whether numbers get mean 0 and deviation 1.
      test_clients: Share of the clients, ids, or None.
      seed: Draws that share.
    """

    client: str | None
    label: str | None
    targets: tuple[str, ...]
    features: tuple[str, ...]
    subject: str | None = None
    row_groups: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    missing: str | float = "error"
    encoding: str = "one_hot"
    standardize: bool = False
    test_clients: float | tuple | None = None
    seed: int = 0

    @property
    def columns(self) -> list[str]:
        ids = (self.client, self.subject, self.label)
        named = (*ids, *self.targets, *self.features, *self.row_groups, *self.groups)
        return list(dict.fromkeys(name for name in named if name is not None))


class Survey(NamedTuple):
    """The facts of a table before its features are made.

    Attributes:
      kinds: {column: kind}, none of them "unknown".
      categories: {column of texts: its texts, sorted}.
      fills: {column: what missing values become}.
      moments: {column: (mean, deviation)} of what is standardized.
      test_clients: Ids, or None.
      dropped: {split: rows that are left out}.
    """

    kinds: Mapping[str, str]
    categories: Mapping[str, Sequence[str]] = {}
    fills: Mapping[str, Any] = {}
    moments: Mapping[str, tuple[float, float]] = {}
    test_clients: Collection | None = None
    dropped: Mapping[str, int] = {}


def surveyed(table: Table, roles: Roles) -> Survey:
    """Returns what has to be known of a table; reads it only where that is not in its schema.

    Raises:
      ValueError: If a column cannot be what it is for; says where, and what to do.
    """
    kinds = {name: table.columns[name] for name in roles.columns}
    _check_kinds(table, roles, kinds)
    kinds |= _ids_known(table, roles, kinds)
    others = {roles.client, roles.subject, roles.label, *roles.targets, *roles.features}
    groups = {*roles.row_groups, *roles.groups} - others
    kinds |= dict.fromkeys(groups, "text")
    test_clients = _test_clients(table, roles, kinds)
    is_known = all(kinds[name] not in ("unknown", "text") for name in roles.features)
    if is_known and roles.missing not in _COUNTED and not roles.standardize:
        fills = {} if roles.missing == "error" else dict.fromkeys(roles.features, roles.missing)
        return Survey(kinds, fills=fills, test_clients=test_clients)
    return _tallied(table, roles, kinds, test_clients)


def _tallied(table: Table, roles: Roles, kinds: dict[str, str], test_clients) -> Survey:
    """Returns the survey of a table that is read for it.

    Columns that may be anything are taken for numbers, until a text is none: they are texts then,
    and all is counted again.
    """
    opened = [name for name in kinds if kinds[name] == "unknown"]
    first_odd: dict[str, Odd] = {}
    while True:
        tally = Tally({**kinds, **dict.fromkeys(opened, "number")}, roles, test_clients, first_odd)
        for batch in table.read(roles.columns, 0):
            odd = [name for name in opened if not read.are_numbers(batch, name)]
            if fixed := [name for name in odd if name in roles.targets]:
                read.numbers(batch, fixed[0])  # says where
            if odd:
                first_odd |= {
                    name: Odd(batch.path, batch.first + row, value)
                    for name, (row, value) in ((n, read.no_number(batch, n)) for n in odd)
                }
                kinds |= dict.fromkeys(odd, "text")
                opened = [name for name in opened if name not in odd]
                break
            tally.add(batch)
        else:
            return tally.survey(table.files[0][1])


def _check_kinds(table: Table, roles: Roles, kinds: Mapping[str, str]) -> None:
    """Raises ValueError where a column is of a type that cannot be what it is for."""
    ids, numbers = {"integer", "text", "unknown"}, {"number", "integer", "truth", "unknown"}
    for what, names, fitting, remedy in (
        ("client", [roles.client], ids, "write ids as integers or texts"),
        ("subject", [roles.subject], ids, "write ids as integers or texts"),
        ("group", [*roles.row_groups, *roles.groups], ids | {"truth"}, "write it as texts"),
        ("label", [roles.label], ids | numbers, "write classes as texts or as 0, 1, 2, ..."),
        ("target", roles.targets, numbers, "write it as numbers"),
        ("feature", roles.features, ids | numbers | {"vector"}, "name the others as features, or "
         "make numbers or texts of it"),
    ):  # fmt: skip
        if what == "target" and len(names) == 1:
            fitting = fitting | {"vector"}
        for name in names:
            if name is not None and kinds[name] not in fitting:
                raise refused(
                    table.files[0][1],
                    f"column {name!r} holds {kinds[name]}, which is no {what}: {remedy}",
                )
    _check_arrays(table, roles, kinds)


def _check_arrays(table: Table, roles: Roles, kinds: Mapping[str, str]) -> None:
    """Raises ValueError where a column of arrays is asked for what only other columns give."""
    arrays = [name for name in roles.features if kinds[name] == "vector"]
    if arrays and len(roles.features) > 1:
        others = ", ".join(repr(name) for name in roles.features if name != arrays[0])
        raise refused(
            table.files[0][1],
            f"column {arrays[0]!r} holds arrays, which are all features or none, and {others} "
            f"would be features as well: give features={arrays[0]!r}, or the others",
        )
    given = {
        "missing": None if roles.missing in ("error", "drop") else roles.missing,
        "encoding": None if roles.encoding == "one_hot" else roles.encoding,
        "standardize": roles.standardize or None,
    }
    for key, value in given.items():
        if arrays and value is not None:
            remedy = "give 'drop', or fill" if key == "missing" else "leave it out, or change"
            raise refused(
                table.files[0][1],
                f"{key} = {value!r} is of columns of numbers and texts, and {arrays[0]!r} holds "
                f"arrays, which are taken as they are: {remedy} them beforehand",
            )


def _ids_known(table: Table, roles: Roles, kinds: Mapping[str, str]) -> dict[str, str]:
    """Returns whether ids and labels whose type is open are integers or texts."""
    ids = dict.fromkeys((roles.client, roles.subject, roles.label))
    open_ones = [name for name in ids if name and kinds[name] == "unknown"]
    are_integers = dict.fromkeys(open_ones, True)
    if open_ones:
        for batch in table.read(open_ones, 0):
            for name in open_ones:
                are_integers[name] = are_integers[name] and read.are_integers(batch, name)
            if not any(are_integers.values()):
                break
    return {name: "integer" if whole else "text" for name, whole in are_integers.items()}


def _test_clients(table: Table, roles: Roles, kinds) -> Collection | None:
    """Returns the ids of the clients whose rows are test rows."""
    if roles.test_clients is None:
        return None
    kind, is_share = kinds[roles.client], isinstance(roles.test_clients, float)
    found: set = set()
    for batch in table.read([roles.client], 0):
        present = ~read.missing(batch, [roles.client])[:, 0]
        found.update(_ids(batch, roles.client, kind, present).tolist())
    if not is_share:
        wanted = {int(v) if kind == "integer" and _is_whole(v) else v for v in roles.test_clients}
        if absent := sorted(map(str, wanted - found)):
            near = nearest(absent[0], [*map(str, found)])
            raise ValueError(
                f"test_clients: there is no client {absent[0]!r} in the column {roles.client!r}"
                + (f"; did you mean {near!r}?" if near else "")
            )
        if not found - wanted:
            raise ValueError(f"test_clients names all {len(found)} clients: none is left to train")
        return wanted
    ids = sorted(found)
    count = max(1, round(roles.test_clients * len(ids)))
    if count >= len(ids):
        raise ValueError(
            f"test_clients = {roles.test_clients} of {len(ids)} clients leaves none to train"
        )
    order = random.generator(roles.seed, "test clients").permutation(len(ids))
    return {ids[number] for number in order[:count]}


def is_test(ids: np.ndarray, test_clients: Collection) -> np.ndarray:
    """Returns bool[R], whether each id is that of a test client."""
    return np.fromiter((value in test_clients for value in ids.tolist()), bool, len(ids))


def _ids(batch: Batch, name: str, kind: str, present: np.ndarray) -> np.ndarray:
    """Returns the ids of the rows that have one."""
    if present.all():
        return read.ids(batch, name, kind)
    import pyarrow as pa

    column = batch.columns[name].filter(pa.array(present))
    return read.ids(batch._replace(columns={name: column}), name, kind)


def _is_whole(value: Any) -> bool:
    try:
        return int(value) == float(value)
    except (TypeError, ValueError):
        return False


@dataclasses.dataclass
class Tally:
    """The counts of the batches of a table; see `Survey`."""

    kinds: dict[str, str]
    roles: Roles
    test_clients: Collection | None
    first_odd: Mapping[str, Odd] = dataclasses.field(default_factory=dict)
    counts: dict[str, collections.Counter] = dataclasses.field(default_factory=dict)
    elsewhere: dict[str, set] = dataclasses.field(default_factory=dict)
    moments: dict[str, tuple[int, float, float]] = dataclasses.field(default_factory=dict)
    dropped: collections.Counter = dataclasses.field(default_factory=collections.Counter)

    def add(self, batch: Batch) -> None:
        """Counts one batch."""
        import pyarrow as pa

        trains = np.full(batch.num_rows, batch.split == "train")
        kept = np.ones(batch.num_rows, bool)
        if self.roles.missing == "drop":
            kept = ~read.missing(batch, self.roles.columns).any(1)
        if self.test_clients is not None:
            name = self.roles.client
            present = ~read.missing(batch, [name])[:, 0]
            tested = is_test(_ids(batch, name, self.kinds[name], present), self.test_clients)
            trains[np.flatnonzero(present)[tested]] = False
        for split, rows in (("train", trains), ("test", ~trains)):
            self.dropped[split] += int((rows & ~kept).sum())
        for name in self.roles.features:
            if self.kinds[name] == "vector":
                return
            if self.kinds[name] == "text":
                column = read.texts(batch, name)
                seen = self.elsewhere.setdefault(name, set())
                seen.update(column.filter(pa.array(kept & ~trains)).unique().to_pylist())
                self._count(batch, name, column.filter(pa.array(kept & trains)))
                continue
            values = read.numbers(batch, name)[kept & trains]
            if self.roles.missing == "most_frequent":
                self._count(batch, name, pa.array(values, from_pandas=True))
            self.moments[name] = _merged(self.moments.get(name), values[~np.isnan(values)])

    def _count(self, batch: Batch, name: str, column: Any) -> None:
        counts = self.counts.setdefault(name, collections.Counter())
        for value, count in zip(*column.drop_null().value_counts().flatten(), strict=True):
            counts[value.as_py()] += count.as_py()
        most = _MOST_COUNTED
        if self.kinds[name] == "text":
            most = _MOST_CODES if self.roles.encoding == "codes" else _MOST_KINDS
        if len(counts) > most:
            if name in self.first_odd:
                check_no_numbers(name, counts, self.first_odd[name])
            remedy = "take another policy for missing values"
            if self.kinds[name] == "text":
                remedy = "leave it out of features" + (
                    ", or give encoding='codes'" if most == _MOST_KINDS else ""
                )
            raise refused(
                batch.path, f"column {name!r} has more than {most:,} different values: {remedy}"
            )

    def survey(self, path) -> Survey:
        """Returns what was found; `path` is the file for messages."""
        categories, fills, moments, kinds = {}, {}, {}, dict(self.kinds)
        for name in self.roles.features:
            if kinds[name] == "vector":
                break
            if kinds[name] == "text":
                if {text.lower() for text in self.counts[name]} <= read.TRUTHS.keys():
                    kinds[name] = "truth"
                else:
                    self._check_texts(path, name)
                    categories[name] = sorted(self.counts[name])
            fills[name] = self._fill(path, name, kinds[name])
            if kinds[name] == "text":
                if self.roles.missing not in ("error", *_COUNTED):
                    categories[name] = sorted({*categories[name], MISSING})
                self._warn_of_unknown(name, categories[name])
            elif kinds[name] != "truth" and self.roles.standardize:
                moments[name] = self._standard(path, name)
        return Survey(kinds, categories, fills, moments, self.test_clients, dict(self.dropped))

    def _check_texts(self, path, name: str) -> None:
        if name in self.first_odd:
            check_no_numbers(name, self.counts[name], self.first_odd[name])
        if self.roles.encoding == "one_hot":
            check_bounded(path, name, self.counts[name])

    def _fill(self, path, name: str, kind: str) -> Any:
        """Returns what a missing value of a feature becomes, or None where it becomes nothing."""
        missing = self.roles.missing
        if missing in ("error", "drop"):
            return None
        if missing not in _COUNTED:
            return MISSING if kind == "text" else missing
        counts, moments = self.counts.get(name), self.moments.get(name)
        if not (counts or (moments and moments[0])):
            raise refused(
                path, f"column {name!r} has no value in any training row: leave it out of features"
            )
        if counts is None:
            return round(moments[1]) if kind == "truth" else moments[1]
        most = max(counts.values())
        common = min(value for value, count in counts.items() if count == most)
        return (
            read.TRUTHS[common.lower()] if kind == "truth" and isinstance(common, str) else common
        )

    def _standard(self, path, name: str) -> tuple[float, float]:
        """Returns (mean, deviation) of a column of numbers; a constant one has deviation 1."""
        count, mean, squares = self.moments[name]
        deviation = float(np.sqrt(squares / max(count, 1)))
        return mean, deviation if deviation > 0 else 1.0

    def _warn_of_unknown(self, name: str, known: Sequence[str]) -> None:
        unknown = sorted(self.elsewhere[name] - {*known, None})
        if unknown:
            warnings.warn(
                f"Column {name!r}: {len(unknown)} of its texts, such as {unknown[0]!r}, are in "
                "test rows alone; no feature stands for them.",
                stacklevel=2,
            )


def _merged(moments, values: np.ndarray) -> tuple[int, float, float]:
    """Returns (count, mean, sum of squared deviations) with further values (Chan et al. 1979)."""
    count, mean, squares = moments or (0, 0.0, 0.0)
    if not values.size:
        return count, mean, squares
    own = float(values.mean())
    both, gap = count + values.size, own - mean
    with np.errstate(over="ignore"):
        squares += float(((values - own) ** 2).sum()) + gap * gap * count * values.size / both
    return both, mean + gap * values.size / both, squares
