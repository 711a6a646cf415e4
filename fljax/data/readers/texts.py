"""Turns texts into ids of characters or words: sequences to predict, or features of one length.

Ids are 0 for padding, 1..V for the vocabulary in its order, V + 1 for whatever is not in it, V + 2
for the begin and V + 3 for the end of a text.
"""

from __future__ import annotations

import collections
import pathlib
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from fljax.core.archives import read_bytes, refused
from fljax.core.data_files import missing_files
from fljax.core.values import COUNT, Field, checked, checked_path

# Ids of one example, by what a text is made of; those of LEAF's Shakespeare and Sent140.
DEFAULT_LENGTHS = {"characters": 80, "words": 25}
PAD = 0
DEFAULT_SIZE = 10_000
# Of the texts of LEAF: words with their apostrophes, and signs of punctuation.
_WORD = re.compile(r"[\w']+|[.,!?;]")


class TextOptions(NamedTuple):
    """Options for reading texts.

    Attributes:
      unit: "characters" or "words"; None where no feature is a text.
      vocabulary: A file of one word or character a line, the most frequent first (what follows a
        space is left out); None: that of the training texts.
      vocabulary_size: How many of them are taken.
      length: Ids of one example; None: 80 characters, 25 words.
    """

    unit: str | None
    vocabulary: pathlib.Path | None
    vocabulary_size: int
    length: int | None = None


def text_options(
    text: str | None = None,
    vocabulary: str | None = None,
    vocabulary_size: int = DEFAULT_SIZE,
    sequence_length: int | None = None,
) -> TextOptions:
    """Returns TextOptions of options as users write them.

    Raises:
      ValueError: If one is of a wrong kind, or says something of texts where `text` is None.
      FileNotFoundError: If the vocabulary is not there.
    """
    unit = checked("text", text, Field(None, str, tuple(DEFAULT_LENGTHS), optional=True))
    vocabulary_size = checked("vocabulary_size", vocabulary_size, Field(DEFAULT_SIZE, int, COUNT))
    length = checked("sequence_length", sequence_length, Field(None, int, COUNT, optional=True))
    path = None if vocabulary is None else checked_path("vocabulary", vocabulary).expanduser()
    if unit is None and (path, vocabulary_size, length) != (None, DEFAULT_SIZE, None):
        raise ValueError(
            "vocabulary, vocabulary_size and sequence_length are for texts: give text='words' or "
            "text='characters' as well"
        )
    if path is not None and not path.is_file():
        raise FileNotFoundError(missing_files("vocabulary", [path.name], path.parent))
    return TextOptions(unit, path, vocabulary_size, length)


class Vocabulary:
    """Ids of characters or words.

    Args:
      unit: "characters" or "words".
      entries: The characters or words with ids 1..V.

    Example:
      >>> from fljax.data.readers.texts import Vocabulary
      >>> words = Vocabulary("words", ["to", "be"])
      >>> words.ids("to be, or").tolist(), words.num_ids
      ([1, 2, 3, 3], 6)
    """

    def __init__(self, unit: str, entries: Sequence[str]):
        self.unit, self.entries = unit, list(entries)
        self._id = {entry: number + 1 for number, entry in enumerate(self.entries)}
        self.other = len(self.entries) + 1
        self.begin, self.end = self.other + 1, self.other + 2
        self.num_ids = self.other + 3

    def ids(self, text: str | Sequence[str]) -> np.ndarray:
        """Returns int32[n] of a text, or of one that is a list of words already."""
        parts = split(text, self.unit)
        return np.fromiter((self._id.get(part, self.other) for part in parts), np.int32)

    def features(self, texts: Sequence, length: int) -> np.ndarray:
        """Returns int32[texts, length], each text cut or padded at its end."""
        found = np.full((len(texts), length), PAD, np.int32)
        for row, text in enumerate(texts):
            ids = self.ids(text)[:length]
            found[row, : len(ids)] = ids
        return found

    def sequences(self, texts: Sequence, length: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns (int32[chunks, length + 1] ids of begin, text and end, chunks of each text)."""
        encoded = [self.ids(text) for text in texts]
        return chunked(encoded, length + 1, self.begin, self.end)


def token_names(vocabulary: Sequence[str]) -> tuple[str, ...]:
    """Returns the name of each id: of padding, a vocabulary, unknown, begin and end."""
    return ("\0", *vocabulary, "\ufffd", "\u2039", "\u203a")


def split(text: str | Sequence[str], unit: str) -> Iterable[str]:
    """Returns the characters or words of a text; a list of words is taken as it is."""
    if not isinstance(text, str):
        return text
    return text if unit == "characters" else _WORD.findall(text)


def chunked(
    texts: Sequence[np.ndarray], width: int, begin: int, end: int, dtype=np.int32
) -> tuple[np.ndarray, np.ndarray]:
    """Puts `begin` before and `end` behind each text, and cuts it into padded chunks.

    Args:
      texts: Ids of each.
      width: Ids of a chunk.
      begin: Id before a text.
      end: Id behind it.
      dtype: Of the chunks.

    Returns:
      (array[chunks, width], int64[texts] chunks of each text).
    """
    lengths = np.array([len(text) for text in texts], np.int64)
    chunks = -(-(lengths + 2) // width)
    starts = (np.cumsum(chunks) - chunks) * width
    flat = np.concatenate(texts) if len(texts) else np.zeros(0, dtype)
    ids = np.full(int(chunks.sum()) * width, PAD, dtype)
    ids[starts] = begin
    ids[starts + 1 + lengths] = end
    within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    ids[np.repeat(starts + 1, lengths) + within] = flat
    return ids.reshape(-1, width), chunks


def vocabulary_of(options: TextOptions, training_texts: Callable[[], Iterable[Any]]) -> Vocabulary:
    """Returns the vocabulary of a file, or the most frequent entries of the training texts.

    Entries that are equally frequent are in sorted order; of characters, all are in sorted order.
    Texts are read once, and only where there is no file.
    """
    if options.vocabulary is not None:
        return Vocabulary(options.unit, _read(options))
    counts: collections.Counter[str] = collections.Counter()
    for text in training_texts():
        counts.update(split(text, options.unit))
    common = sorted(counts, key=lambda entry: (-counts[entry], entry))[: options.vocabulary_size]
    return Vocabulary(options.unit, sorted(common) if options.unit == "characters" else common)


def _read(options: TextOptions) -> list[str]:
    lines = read_bytes(options.vocabulary).decode("utf-8-sig").split("\n")
    if options.unit == "words":
        lines = [line.split()[0] for line in lines if line.strip()]
    entries = [line for line in lines if line][: options.vocabulary_size]
    twice = [entry for entry, count in collections.Counter(entries).items() if count > 1]
    if twice or not entries:
        why = f"names {twice[0]!r} twice" if twice else "is empty"
        raise refused(options.vocabulary, f"{why}: a vocabulary has one entry a line")
    return entries
