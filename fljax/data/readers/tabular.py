"""Tables of one's own as data sets: CSV, Parquet, Arrow and NumPy files, a column saying whose."""

from __future__ import annotations

import glob
import inspect
import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fljax.core.archives import refused
from fljax.core.data_files import resolve_data_dir
from fljax.core.names import nearest
from fljax.core.values import DECAY, Field, checked, checked_path, wrong
from fljax.data.dataset import KINDS, FederatedDataset
from fljax.data.image_scaling import image_scaling
from fljax.data.partitions.partition_arguments import partition_setting
from fljax.data.readers import features as made
from fljax.data.readers.arrow_tables import arrow_table, parquet_table
from fljax.data.readers.blocks import Reading
from fljax.data.readers.cache import Cache, cached
from fljax.data.readers.csv_tables import NULL_VALUES, csv_table
from fljax.data.readers.npz_tables import npz_table
from fljax.data.readers.population import population
from fljax.data.readers.survey import Roles
from fljax.data.readers.tables import Files, Table

_ENCODING = Field("one_hot", str, ("one_hot", "codes"))
_POLICIES = ("error", "drop", "mean", "most_frequent")
Names = str | Sequence[str]


def table(
    format: str,
    open_table: Callable[..., Table],
    suffixes: Sequence[str],
    path: Names,
    settings: dict[str, Any],
    *,
    client: str | None = None,
    label: str | None = None,
    target: Names | None = None,
    features: Names | None = None,
    split_by: str | None = None,
    row_groups: Names | None = None,
    groups: Names | None = None,
    test_path: Names | None = None,
    test_clients: float | str | Sequence | None = None,
    missing: str | float = "error",
    encoding: str = "one_hot",
    standardize: bool = False,
    kind: str | None = None,
    num_classes: int | None = None,
    seed: int = 0,
    data_dir=None,
    cache_dir=None,
    verify: bool = False,
    **clients: Any,
) -> FederatedDataset:
    """Reads files with rows and columns into a data set, through a cache that later runs open.

    Numbers and truth values are features as they are; of a column of texts each text is a feature,
    0 or 1. A column of arrays is all features or none, in its own type and shape; bytes, as of
    images, are scaled to [0, 1]; standardize, encoding and missing are of other columns, but for
    "drop", to which an array with a missing number is missing. Whatever features depend on
    is of training rows alone.

    Args:
      format: Its name.
      open_table: (files, **settings) -> Table.
      suffixes: Of the files that are taken of a folder.
      path: A file, several, a pattern such as "part-*.csv", or a folder; relative to the current
        folder or, if it is not there, to the data directory.
      settings: Of the format.
      client: The column of client ids, integers or texts; None where a partition makes clients.
      label: The column of classes, texts or 0, 1, 2, ...
      target: The column or columns of numbers that a task such as regression learns.
      features: The columns that the model sees; by default all others.
      split_by: The column of subjects, such as patients, whose rows stay with one client and on one
        side of every split.
      row_groups: Columns, such as sex, by whose values metrics are reported as well.
      groups: Columns, such as the region of a hospital, that are alike in all rows of a client and
        by whose values clients are reported; no features unless `features` names them.
      test_path: Files of test rows.
      test_clients: Clients whose rows are test rows and never trained on: a share of them, their
        ids, or the path of a file with an id a line.
      missing: What becomes of missing values: "error" refuses them, "drop" leaves their rows out,
        "mean" takes the column's mean, and of texts and truth values the most frequent one, which
        "most_frequent" takes of all columns. A number takes their place among numbers; a missing
        text is then a text of its own.
      encoding: "one_hot", or "codes": each text is its number in the sorted order, for embeddings.
      standardize: Whether numbers are brought to mean 0 and deviation 1.
      kind: Of the data set, see `FederatedDataset`; None for what label or target say.
      num_classes: Default: as many as there are, or the largest label plus one.
      seed: Chooses test clients, and the partition.
      data_dir: See `fljax.core.data_files.resolve_data_dir`.
      cache_dir, verify: See `fljax.data.readers.cache.cached`.
      **clients: As in `load`; the default partition is "natural" where there is a client column.

    Raises:
      FileNotFoundError: If there is no such file.
      ValueError: If a file is damaged or a value is not what its column is for, with the file, the
        row, the column and the remedy; what was cached before stays.
    """
    train = files_at("path", path, data_dir, suffixes)
    test = [] if test_path is None else files_at("test_path", test_path, data_dir, suffixes)
    files: Files = [*(("train", file) for file in train), *(("test", file) for file in test)]
    seed = partition_setting("seed", seed)
    given = Roles(
        client, label, target, features, split_by, row_groups, groups, missing, encoding,
        standardize, _test_clients(test_clients, client, test_path, data_dir), seed,
    )  # fmt: skip
    roles = _checked(format, given)
    if client is None and clients.get("partition") is None and clients.get("num_clients") is None:
        raise ValueError(
            f"{format}: name the column of clients as client, or give num_clients, and a "
            "partition such as 'dirichlet(alpha=0.3)'"
        )

    def opened():
        found = open_table(files, **settings)
        return made.opened(found, _complete(roles, found))

    options = {"files": [[split, os.path.abspath(file)] for split, file in files], **settings}
    found = cached(
        Reading(format, [*train, *test], {**options, **roles._asdict()}, opened), cache_dir, verify
    )
    if kind is None and target is not None:
        kind = KINDS[-1]
    _say_of(format, found, label)
    is_bytes = found.columns["x"]["dtype"] == "uint8" and kind != "next_token"
    return population(
        found,
        name=format,
        kind=kind,
        num_classes=num_classes,
        preprocess=image_scaling(None) if is_bytes else None,
        natural=client is not None,
        seed=seed,
        **clients,
    )


def _with_options(function: Callable[..., FederatedDataset]) -> Callable[..., FederatedDataset]:
    """Lets the signature of a format name the options of `table`, so that texts may give them."""
    own = list(inspect.signature(function).parameters.values())[:-1]
    shared = list(inspect.signature(table).parameters.values())
    shared = [
        parameter for parameter in shared if parameter.kind is not parameter.POSITIONAL_OR_KEYWORD
    ]
    vars(function)["__signature__"] = inspect.Signature([*own, *shared])
    return function


@_with_options
def csv(
    path: Names,
    *,
    delimiter: str = ",",
    column_names: Sequence[str] | None = None,
    null_values: Sequence[str] = NULL_VALUES,
    **options: Any,
) -> FederatedDataset:
    """Reads CSV files, plain or compressed, in UTF-8.

    Columns all of whose values are integers, numbers or true and false are that; others are texts.

    Args:
      path: See `table`.
      delimiter: Between two values.
      column_names: Where the first line is a row already.
      null_values: Texts that stand for a missing value.
      **options: Those of `table`.

    Raises:
      As `table`.

    Example:
      >>> dataset = data.load(  # doctest: +SKIP
      ...     "csv", path="visits.csv", client="user", label="outcome"
      ... )
    """
    delimiter = checked("delimiter", delimiter, Field(",", str))
    settings = {
        "delimiter": {"tab": "\t", "\\t": "\t"}.get(delimiter, delimiter),
        "column_names": _names("column_names", column_names) or None,
        "null_values": _names("null_values", null_values, "texts, each once"),
    }
    return table("csv", csv_table, (".csv", ".csv.gz", ".tsv"), path, settings, **options)


@_with_options
def parquet(path: Names, **options: Any) -> FederatedDataset:
    """Reads Parquet files; options are those of `table`."""
    return table("parquet", parquet_table, (".parquet", ".pq"), path, {}, **options)


@_with_options
def arrow(path: Names, **options: Any) -> FederatedDataset:
    """Reads Arrow files or streams (Feather version 2); options are those of `table`."""
    return table("arrow", arrow_table, (".arrow", ".feather", ".ipc"), path, {}, **options)


@_with_options
def numpy(path: Names, **options: Any) -> FederatedDataset:
    """Reads `.npz` archives, each of whose arrays is a column; options are those of `table`."""
    return table("numpy", npz_table, (".npz",), path, {}, **options)


def _checked(format: str, given: Roles) -> Roles:
    """Returns the roles as they were given, their values checked and names as tuples."""
    for name in ("client", "label", "subject"):
        key = "split_by" if name == "subject" else name
        checked(key, getattr(given, name), Field(None, str, optional=True))
    if (given.label is None) == (given.targets is None):
        raise ValueError(
            f"{format}: give the column of classes as label, or those of numbers as target"
            + (", not both" if given.label is not None else "")
        )
    missing = given.missing
    if not isinstance(missing, int | float) or isinstance(missing, bool):
        missing = checked("missing", missing, Field("error", str, _POLICIES))
    return given._replace(
        targets=_names("target", given.targets),
        features=_names("features", given.features),
        row_groups=_names("row_groups", given.row_groups),
        groups=_names("groups", given.groups),
        missing=missing,
        encoding=checked("encoding", given.encoding, _ENCODING),
        standardize=checked("standardize", given.standardize, Field(False, bool)),
        seed=given.seed if isinstance(given.test_clients, float) else 0,
    )


def _say_of(format: str, found: Cache, label: str | None) -> None:
    """Warns of rows that were left out, and refuses integers that are no classes."""
    left_out = [f"{rows} {split} rows" for split, rows in found.facts["dropped"].items() if rows]
    if left_out:
        warnings.warn(
            f"{format}: {' and '.join(left_out)} lack a value and were left out.", stacklevel=3
        )
    low, high = found.columns["y"]["low"], found.columns["y"]["high"]
    if label is not None and low < 0:
        raise ValueError(
            f"{format}: the column {label!r} holds {low} to {high}, and classes are 0, 1, 2, ... "
            "or texts: write it so, or give it as target"
        )


def _complete(roles: Roles, found: Table) -> Roles:
    """Returns the roles with all features named; refuses columns that are not there."""
    path = found.files[0][1]
    for name in roles.columns:
        if name not in found.columns:
            near = nearest(name, found.columns)
            raise refused(
                path,
                f"has no column {name!r}"
                + (f"; did you mean {near!r}?" if near else ".")
                + f" It has {', '.join(found.columns)}.",
            )
    _check_apart(roles)
    taken = {roles.client, roles.subject, roles.label, *roles.targets}
    features = roles.features or tuple(
        name for name in found.columns if name not in {*taken, *roles.groups}
    )
    if twice := next((name for name in features if name in taken), None):
        raise ValueError(
            f"features has {twice!r}, which is client, split_by, label or target already"
        )
    if not features:
        raise refused(path, "has no column that is left for features")
    return roles._replace(features=features)


def _check_apart(roles: Roles) -> None:
    """Refuses one column in two roles where that says nothing: subjects and targets are others.

    Clients may be subjects, and classes to be told apart; groups may be of any column.
    """
    for key, names, other, others in (
        ("split_by", (roles.subject,), "label", (roles.label,)),
        ("split_by", (roles.subject,), "target", roles.targets),
        ("client", (roles.client,), "target", roles.targets),
    ):
        if both := [name for name in names if name is not None and name in others]:
            raise ValueError(
                f"{key} and {other} are both the column {both[0]!r}: name another for one of them"
            )


def _names(key: str, value: Any, what: str = "names of columns, each once") -> tuple[str, ...]:
    """Returns texts as a tuple; a single one is one name, None is none."""
    names = (value,) if isinstance(value, str) else () if value is None else value
    is_list = isinstance(names, Sequence) and all(isinstance(name, str) for name in names)
    if not is_list or len(set(names)) != len(names):
        raise wrong(key, value, what)
    return tuple(names)


def files_at(key: str, path: Names, data_dir, suffixes: Sequence[str]) -> list[Path]:
    """Returns the files that a path names, sorted."""
    if isinstance(path, list | tuple):
        return [file for each in path for file in files_at(key, each, data_dir, suffixes)]
    given = checked_path(key, path).expanduser()
    for place in dict.fromkeys((given, resolve_data_dir(data_dir) / given)):
        if place.is_dir():
            files = (file for file in place.rglob("*") if file.name.endswith(tuple(suffixes)))
        else:
            files = map(Path, [place] if place.is_file() else glob.glob(str(place)))
        if found := sorted(file for file in files if file.is_file()):
            return found
    what = f"with files *{', *'.join(suffixes)} " if given.is_dir() else ""
    raise FileNotFoundError(
        f"{key} = {os.fspath(path)!r}: there is no such file or folder {what}here or in "
        f"{resolve_data_dir(data_dir)}"
    )


def _test_clients(value: Any, client: str | None, test_path: Any, data_dir) -> float | tuple | None:
    """Returns the share of clients that are tested on, or their ids."""
    if value is None:
        return None
    for key, clashes in (("client", client is None), ("test_path", test_path is not None)):
        if clashes:
            need = "needs the column of clients" if client is None else "and test_path exclude each"
            raise ValueError(f"test_clients {need}{' other' if client else ''}: see {key}")
    if isinstance(value, str | os.PathLike):
        (file,) = files_at("test_clients", value, data_dir, ("",))[:1]
        return tuple(filter(None, map(str.strip, file.read_text("utf-8").splitlines())))
    if isinstance(value, list | tuple):
        return tuple(value)
    share = checked("test_clients", value, Field(0.1, float, DECAY))
    if not share:
        raise ValueError("test_clients = 0: give a share above 0, or leave it out")
    return share
