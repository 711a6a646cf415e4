"""Turns records, rows of named features as formats of federated data store them, into blocks."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fljax.core.data_files import resolve_data_dir
from fljax.core.values import checked_path, wrong
from fljax.data.dataset import FederatedDataset
from fljax.data.image_scaling import image_scaling
from fljax.data.readers.blocks import SPLITS
from fljax.data.readers.cache import Cache
from fljax.data.readers.download import LOCATIONS
from fljax.data.readers.fields import Fields, chosen, columns
from fljax.data.readers.gathering import Piece
from fljax.data.readers.population import population
from fljax.data.readers.texts import (
    DEFAULT_LENGTHS,
    TextOptions,
    Vocabulary,
    token_names,
    vocabulary_of,
)

# What formats call the splits that are "val" here.
_OTHER_NAMES = {"validation": "val", "valid": "val", "held_out": "val", "heldout": "val"}


class Record(NamedTuple):
    """Some rows of one split.

    Attributes:
      split: "train", "val" or "test".
      client: The id of their client, or an array of one for each row.
      features: {name: array[rows, ...] or list of texts}.
      where: What people call the place, for messages.
      beside: {name: array[rows]} of further columns of a block, such as "subject".
    """

    split: str
    client: Any
    features: Mapping[str, Any]
    where: str
    beside: Mapping[str, np.ndarray] = {}


class Reader(NamedTuple):
    """From records to pieces of blocks.

    Attributes:
      pieces: records -> pieces.
      facts: Of the data: "kind", and of texts "vocabulary" and, where they are to be predicted,
        "num_classes".
    """

    pieces: Callable[[Iterable[Record]], Iterator[Piece]]
    facts: dict[str, Any]


# (function that reads records from the beginning, what people call the data) -> what reads them.
Read = Callable[[Callable[[], Iterable[Record]], str], Reader]


def reader(
    records: Callable[[], Iterable[Record]], wanted: Fields, text: TextOptions, where: str
) -> Reader:
    """Looks at the first record, and counts the words of training texts where they are needed.

    Args:
      records: Reads them from the beginning.
      wanted: What becomes x and y.
      text: How texts are read.
      where: What people call the data.

    Raises:
      ValueError: If there are no rows, a feature is not there, or nothing says how to read texts.
    """
    first = next(_filled(records()), None)
    if first is None:
        raise ValueError(f"{where} holds no rows")
    wanted = chosen(list(first.features), wanted, first.where)
    is_text = isinstance(wanted.features, str) and _is_text(first.features[wanted.features])
    if is_text and text.unit is None:
        raise ValueError(
            f"{first.where}: {wanted.features!r} holds texts: say how to read them, "
            "text='characters' or text='words'"
        )
    if text.unit is not None and not is_text:
        raise ValueError(
            f"{first.where}: text = {text.unit!r}, but {wanted.features!r} holds no texts: leave "
            "it out"
        )
    if is_text and (wanted.shape or wanted.dtype):
        raise ValueError(
            f"{first.where}: {wanted.features!r} holds texts, which become ids of int32, "
            "sequence_length of them: leave shape and dtype out"
        )
    y = wanted.label or wanted.target
    if y is None and not is_text:
        raise ValueError(
            f"{first.where}: say which of its features is y (label=... of a class, target=... of "
            f"numbers): {', '.join(first.features)}"
        )
    kind = "targets" if wanted.target else "classification" if wanted.label else "next_token"
    if not is_text:
        return Reader(lambda found: (_piece(r, wanted) for r in _filled(found)), {"kind": kind})
    length = text.length or DEFAULT_LENGTHS[text.unit]
    vocabulary = vocabulary_of(text, lambda: _training_texts(records(), wanted.features))
    facts = {"kind": kind, "vocabulary": vocabulary.entries}
    if y is None:
        facts["num_classes"] = vocabulary.num_ids

        def as_sequences(found):
            return (_sequences(r, wanted, vocabulary, length) for r in _filled(found))

        return Reader(as_sequences, facts)

    def as_features(found):
        return (_features(r, wanted, vocabulary, length) for r in _filled(found))

    return Reader(as_features, facts)


def split_names(
    found: Sequence[str], wanted: Mapping[str, str] | None, where: str
) -> dict[str, str]:
    """Returns {split: its name in the file}.

    Args:
      found: Names in the file.
      wanted: The same as the user says it; None: each name that says itself what it is; a single
        split is for training.
      where: What people call the file.

    Raises:
      ValueError: If a name is not there, or none of them is for training.
    """
    there = ", ".join(found)
    if not isinstance(wanted, Mapping | None):
        raise wrong("splits", wanted, "a dict such as {'train': ..., 'test': ...}, or None")
    if wanted is not None:
        if unknown := [split for split in wanted if split not in SPLITS]:
            raise ValueError(f"splits has the key {unknown[0]!r}; keys are {', '.join(SPLITS)}")
        if missing := [name for name in wanted.values() if name not in found]:
            raise ValueError(f"{where} has no split {missing[0]!r}, but these: {there}")
        chosen_names = dict(wanted)
    elif len(found) == 1:
        chosen_names = {"train": found[0]}
    else:
        chosen_names = {_OTHER_NAMES.get(name, name): name for name in found}
        chosen_names = {split: chosen_names[split] for split in SPLITS if split in chosen_names}
    if "train" not in chosen_names:
        raise ValueError(
            f"{where} has the splits {there or 'none'}: say which is for training "
            "(splits={'train': ...})"
        )
    return chosen_names


def _is_text(values) -> bool:
    return all(isinstance(value, str) for value in values)


def _filled(records: Iterable[Record]) -> Iterator[Record]:
    """Yields those that have rows."""
    return (record for record in records if _num_rows(record))


def _num_rows(record: Record) -> int:
    return len(next(iter(record.features.values()), ()))


def _training_texts(records: Iterable[Record], name: str) -> Iterator[str]:
    for record in records:
        if record.split == "train":
            yield from record.features[name]


def _one_name(wanted: Fields) -> str:
    """Returns the name of x, where it is a single feature, as texts are."""
    assert isinstance(wanted.features, str)
    return wanted.features


def _piece(record: Record, wanted: Fields) -> Piece:
    found = {**columns(record.features, wanted, record.where), **record.beside}
    return Piece(record.split, record.client, found, record.where)


def _features(record: Record, wanted: Fields, vocabulary: Vocabulary, length: int) -> Piece:
    name = _one_name(wanted)
    ids = vocabulary.features(record.features[name], length)
    return _piece(record._replace(features={**record.features, name: ids}), wanted)


def _sequences(record: Record, wanted: Fields, vocabulary: Vocabulary, length: int) -> Piece:
    ids, chunks = vocabulary.sequences(record.features[_one_name(wanted)], length)
    client = record.client
    if isinstance(client, np.ndarray):
        client = np.repeat(client, chunks)
    return Piece(record.split, client, {"x": ids[:, :-1], "y": ids[:, 1:]}, record.where)


def dataset_of(cache: Cache, name: str, clients: Mapping[str, Any]) -> FederatedDataset:
    """Returns the data set of what a reader of records has read.

    Args:
      cache: Its facts say the kind, see `reader`.
      name: For logs and records.
      clients: Arguments of `population`. Images of bytes are scaled to [0, 1] in the program.
    """
    known = {"kind": cache.facts["kind"], "num_classes": cache.facts.get("num_classes")}
    if cache.columns["x"]["dtype"] == "uint8":
        known["preprocess"] = image_scaling(None)
    said = {key: value for key, value in clients.items() if value is not None}
    if known["num_classes"] is not None and "num_classes" not in said:
        known["class_names"] = token_names(cache.facts["vocabulary"])
    return population(cache, name=name, **{**known, **said})


def files_of(data_dir, **paths) -> dict[str, pathlib.Path]:
    """Returns {split: path} of the paths that users gave, as they are or in the data directory.

    Args:
      data_dir: See `resolve_data_dir`.
      **paths: `path`, `val_path`, `test_path`; None where there is none.

    Raises:
      FileNotFoundError: If one of them is not there.
      ValueError: If one is no path.
    """
    found = {}
    for name, value in paths.items():
        if value is None:
            continue
        given = checked_path(name, value).expanduser()
        root = resolve_data_dir(data_dir)
        place = given if given.exists() else root / given
        if not place.exists():
            known = f"; fljax.data.download({given.name!r}) gets it" * (given.name in LOCATIONS)
            raise FileNotFoundError(
                f"{name} = {str(value)!r} is not there, nor is {root / given}: name a file or "
                f"folder that is, with its whole path or relative to the data directory{known}"
            )
        found[{"path": "train"}.get(name, name.removesuffix("_path"))] = place
    return found


def roles_of(paths: Mapping[str, pathlib.Path]) -> dict[str, str]:
    """Returns {split: whole path}: which file is which, as a Reading holds it."""
    return {split: os.path.abspath(path) for split, path in paths.items()}
