"""Reads LEAF's folders of JSON files, user by user.

A file is {"users": [...], "num_samples": [...], "hierarchies": [...], "user_data": {user: {"x":
[...], "y": [...]}}}; `hierarchies`, a group of each user, may be missing. Examples are numbers or
texts. Three data sets of LEAF are their own: Sent140, whose x is a list of texts of which the last
counts; Reddit, whose x is a list of sequences of words and whose y holds the words that follow; and
CelebA, whose x is the name of an image file.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from fljax.core.archives import refused
from fljax.data.dataset import FederatedDataset
from fljax.data.readers.blocks import SPLITS, Opened, Reading, skipping
from fljax.data.readers.cache import cached
from fljax.data.readers.gathering import Piece, gathered
from fljax.data.readers.image_folder import image_loader
from fljax.data.readers.json_stream import members
from fljax.data.readers.options import How, with_how
from fljax.data.readers.records import Reader, Record, dataset_of, files_of
from fljax.data.readers.texts import (
    TextOptions,
    vocabulary_of,
)

_SUFFIXES = (".json", ".json.gz")
_USERS, _COUNTS, _GROUPS, _DATA = "users", "num_samples", "hierarchies", "user_data"
# Reddit's word for padding.
_PADDING = "<PAD>"


@with_how
def leaf(
    *,
    path: str,
    test_path: str | None = None,
    images: str | None = None,
    image_size: int | Sequence[int] | None = None,
    how: How,
    data_dir=None,
    cache_dir=None,
    verify: bool = False,
    **clients,
) -> FederatedDataset:
    """Data of LEAF; its clients are the users, and the group `hierarchy` is that of its files.

    x is float32 where the files hold numbers; texts become ids, see `fljax.data.readers.texts`.

    Args:
      path: LEAF's folder with `train/` and `test/`, or one of JSON files, or one such file.
      test_path: Folder or file of the test rows, where `path` holds training rows alone.
      images: Folder of the image files that x names (CelebA).
      image_size: Rows and columns to which images are scaled, see `image_folder`.
      how: The options of `fljax.data.readers.options.how`, by their names; examples have the
        features "x" and "y". Texts are characters (Shakespeare) or words (Sent140, Reddit).
      data_dir, cache_dir, verify, **clients: As in `tff`.

    Raises:
      FileNotFoundError: If the folder is not there, or has no JSON files.
      ValueError: If a file is truncated, corrupt or of another format, or the options do not fit.

    Example:
      >>> dataset = data.load('leaf', path='femnist/data', shape=[28, 28, 1])  # doctest: +SKIP
    """
    files = _files(files_of(data_dir, path=path, test_path=test_path))
    folder = None if images is None else files_of(data_dir, images=images)["images"]
    if folder is None and image_size is not None:
        raise ValueError("image_size is of image files that x names: give their folder as images")
    load = None if folder is None else image_loader(folder, image_size)
    options = {
        "splits": {split: [str(file) for file in some] for split, some in files.items()},
        "images": folder and [os.path.abspath(folder), image_size],
    }
    reading = Reading(
        "leaf",
        [*(file for some in files.values() for file in some), *how.files],
        {**how.plain, **options},
        lambda: open_json(files, how, load),
    )
    cache = cached(reading, cache_dir, verify)
    name = pathlib.Path(path).name.partition(".")[0]
    dataset = dataset_of(cache, name, {"num_classes": how.num_classes, **clients})
    groups = cache.facts["hierarchies"]
    if dataset.client_ids is None or not all(c in groups for c in dataset.client_ids.tolist()):
        return dataset
    of_client = {"hierarchy": np.array([groups[client] for client in dataset.client_ids.tolist()])}
    return dataclasses.replace(dataset, groups=of_client | dict(dataset.groups))


def open_json(
    files: Mapping[str, Sequence[pathlib.Path]],
    how: How,
    load: Callable[[str], np.ndarray] | None = None,
) -> Opened:
    """Opens LEAF's files.

    Args:
      files: {split: its files}.
      how: How examples are read.
      load: Name of an image file -> uint8[height, width, channels]; None: x names no files.

    Raises:
      ValueError: If a file is truncated, corrupt or of another format, or the options do not fit.
    """
    groups: dict[str, str] = {}
    for some in files.values():
        for file in some:
            groups |= _groups(dict(_head(file)))

    def records() -> Iterator[Record]:
        return _records(files, load, groups)

    first = next((record for record in records() if len(record.features["y"])), None)
    if first is not None and _is_sequence(first.features["y"][0]):
        found = _sequence_reader(records, how.text, first)
    else:
        found = how.reader(records, str(next(iter(files.values()))[0]))
    facts = {**found.facts, "hierarchies": groups}
    return Opened(skipping(lambda: gathered(found.pieces(records()))), facts)


def _files(paths: Mapping[str, pathlib.Path]) -> dict[str, list[pathlib.Path]]:
    """Returns {split: its JSON files}."""
    if "test" not in paths and (paths["train"] / "train").is_dir():
        root = paths["train"]
        paths = {split: root / split for split in SPLITS if (root / split).is_dir()}
    found = {}
    for split, path in paths.items():
        files = [path] if path.is_file() else sorted(path.iterdir())
        found[split] = [file for file in files if file.name.endswith(_SUFFIXES)]
        if not found[split]:
            raise FileNotFoundError(
                f"{path} has no JSON files: name LEAF's folder that has `train/` and `test/`"
            )
    return found


def _head(path: pathlib.Path) -> Iterator[tuple[str, Any]]:
    """Yields the members of a file up to its users' data."""
    for key, _, value in members(path, _DATA):
        if key == _DATA:
            return
        yield key, value


def _groups(known: Mapping[str, Any]) -> dict[str, str]:
    return dict(zip(known.get(_USERS, ()), known.get(_GROUPS, ()), strict=False))


def _records(
    files: Mapping[str, Sequence[pathlib.Path]], load, groups: dict[str, str]
) -> Iterator[Record]:
    """Yields the rows of each user; notes groups that a file names behind its users' data."""
    for split, some in files.items():
        for path in some:
            known: dict[str, Any] = {}
            rows: dict[str, int] = {}
            for key, user, value in members(path, _DATA):
                if key != _DATA:
                    known[key] = value
                    continue
                record = _record(split, path, user, value, load)
                rows[user] = len(record.features["y"])
                yield record
            _check_counts(path, known, rows)
            groups |= _groups(known)


def _check_counts(path: pathlib.Path, known: Mapping[str, Any], rows: Mapping[str, int]) -> None:
    """Raises ValueError unless a file holds all users that it names, with as many rows."""
    if not isinstance(users := known.get(_USERS), list):
        raise refused(path, f"has no list of {_USERS!r}, as files of LEAF have")
    if missing := [user for user in users if user not in rows]:
        raise refused(path, f"names the user {missing[0]!r}, but has no data of them: get it again")
    for user, expected in zip(users, known.get(_COUNTS, ()), strict=False):
        if rows[user] != expected:
            raise refused(
                path,
                f"says that {user!r} has {expected} examples, but has {rows[user]}: get it again",
            )


def _record(split: str, path: pathlib.Path, user: str, value: Any, load) -> Record:
    where = f"{path}, user {user!r}"
    if not isinstance(value, dict) or not {"x", "y"} <= value.keys():
        raise ValueError(f"{where}: must be an object with 'x' and 'y'")
    x, y = value["x"], value["y"]
    if not isinstance(x, list) or not isinstance(y, list) or len(x) != len(y):
        raise ValueError(f"{where}: x and y must be lists of equal length")
    features = {"x": _x(x, load, where) if x else x, "y": y}
    return Record(split, user, features, where)


def _x(x: list, load, where: str) -> Any:
    """Returns x as numbers or a list of texts; sequences of words stay as they are."""
    if isinstance(x[0], list) and x[0] and isinstance(x[0][-1], str):
        x = [parts[-1] for parts in x]  # Sent140: the text of a tweet comes last
    if isinstance(x[0], str):
        return x if load is None else np.stack([load(name) for name in x])
    if load is not None:
        raise ValueError(f"{where}: x names no image files: leave images out")
    if isinstance(x[0], list) and x[0] and isinstance(x[0][0], list) and _holds_text(x[0]):
        return x  # Reddit
    try:
        return np.asarray(x, np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: x must hold numbers of one shape, or texts ({error})") from None


def _holds_text(sequences: list) -> bool:
    return any(isinstance(word, str) for sequence in sequences for word in sequence)


def _is_sequence(y: Any) -> bool:
    """Returns whether a y is that of Reddit: the words that follow those of x."""
    return isinstance(y, dict) and "target_tokens" in y


def _sequence_reader(
    records: Callable[[], Iterator[Record]], text: TextOptions, first: Record
) -> Reader:
    """Returns the reader of Reddit: x and y are ids of sequences, and padding is not scored."""
    if text.unit != "words":
        raise ValueError(f"{first.where}: x holds sequences of words: give text='words'")
    length = text.length or len(first.features["x"][0][0])
    vocabulary = vocabulary_of(text, lambda: _words(records()))

    def pieces(found: Iterable[Record]) -> Iterator[Piece]:
        for record in found:
            x = [words for comment in record.features["x"] for words in comment]
            y = [words for follows in record.features["y"] for words in follows["target_tokens"]]
            if x:
                columns = {
                    name: vocabulary.features(_unpadded(sequences), length)
                    for name, sequences in (("x", x), ("y", y))
                }
                yield Piece(record.split, record.client, columns, record.where)

    facts = {"kind": "next_token", "vocabulary": vocabulary.entries}
    return Reader(pieces, {**facts, "num_classes": vocabulary.num_ids})


def _words(records: Iterable[Record]) -> Iterator[list[str]]:
    for record in records:
        if record.split == "train":
            for comment in record.features["x"]:
                yield from _unpadded(comment)


def _unpadded(sequences: Iterable[list[str]]) -> list[list[str]]:
    return [[word for word in words if word != _PADDING] for words in sequences]
