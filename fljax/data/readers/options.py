"""Options that formats of named features share: what becomes x and y, and how texts are read."""

from __future__ import annotations

import functools
import inspect
import pathlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from fljax.core.values import COUNT, Field, checked
from fljax.data.dataset import FederatedDataset
from fljax.data.readers.fields import Fields, fields
from fljax.data.readers.records import Reader, Record, reader
from fljax.data.readers.texts import DEFAULT_SIZE, TextOptions, text_options


class How(NamedTuple):
    """Options for reading the examples of a format, see `how`."""

    fields: Fields
    text: TextOptions
    num_classes: int | None

    @property
    def files(self) -> list[pathlib.Path]:
        """The files that belong to the options."""
        return [] if self.text.vocabulary is None else [self.text.vocabulary]

    @property
    def plain(self) -> dict[str, Any]:
        """The part of the options that JSON can hold; files stand among those that are read."""
        text = {**self.text._asdict(), "vocabulary": self.text.vocabulary is not None}
        return {"fields": self.fields._asdict(), "text": text}

    def reader(self, records: Callable[[], Iterable[Record]], where: str) -> Reader:
        """Returns what reads records, see `fljax.data.readers.records.reader`."""
        return reader(records, self.fields, self.text, where)


def how(
    *,
    features: str | Sequence[str] | None = None,
    label: str | None = None,
    target: str | None = None,
    shape: Sequence[int] | None = None,
    dtype: str | None = None,
    text: str | None = None,
    vocabulary: str | None = None,
    vocabulary_size: int = DEFAULT_SIZE,
    sequence_length: int | None = None,
    num_classes: int | None = None,
) -> How:
    """Returns how examples are read, of options as users write them.

    Args:
      features: What becomes x: a feature, or several numbers side by side. Default: the only one
        beside the label, or "x".
      label: The feature that is y, a class: integers or texts. Default: "label" or "y" where there
        is one; texts without a label are sequences whose next id is predicted.
      target: The feature that is y in place of a label: a number.
      shape: Of one x, which some formats store flat, such as [28, 28, 1].
      dtype: Of x, such as "uint8" of images, which some store as integers of 64 bits.
      text: "characters" or "words", where x is a text.
      vocabulary: A file with an entry a line; default: that of the training texts.
      vocabulary_size: Entries of it that are used, the most frequent ones.
      sequence_length: Ids of one x; default 80 characters or 25 words.
      num_classes: Default: as many as have names, or the vocabulary has ids, or the largest label
        plus one.

    Raises:
      ValueError: If an option is of a wrong kind, or two of them do not go together.
      FileNotFoundError: If the vocabulary is not there.
    """
    return How(
        fields(features, label, target, shape, dtype),
        text_options(text, vocabulary, vocabulary_size, sequence_length),
        checked("num_classes", num_classes, Field(None, int, COUNT, optional=True)),
    )


def with_how(function: Callable[..., FederatedDataset]) -> Callable[..., FederatedDataset]:
    """Gives a function the options of `how` in place of its argument of that name."""
    own = inspect.signature(function).parameters.values()
    shared = inspect.signature(how).parameters.values()
    named = {parameter.name for parameter in shared}

    @functools.wraps(function)
    def read(*args: Any, **given: Any) -> FederatedDataset:
        said = {name: given.pop(name) for name in named & given.keys()}
        return function(*args, how=how(**said), **given)

    *first, rest = (parameter for parameter in own if parameter.name != "how")
    vars(read)["__signature__"] = inspect.Signature([*first, *shared, rest])
    return read
