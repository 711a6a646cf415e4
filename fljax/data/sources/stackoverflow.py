"""Stack Overflow: the next word of a sentence, or the tags of a question; a client a user.

The data of TensorFlow Federated (Stack Overflow Data, Kaggle, CC BY-SA 3.0): 342,477 users who
train, 38,758 others who are held out, and what users of the former wrote from 2018 on to test on.
Vocabularies are TensorFlow Federated's lists of words and tags, the most frequent first.

Preprocessing is that of Reddi et al. (arXiv:2003.00295), as TensorFlow Federated's baselines have
it. Next word: a sentence is cut into words at spaces, and to 20 of them; a shorter one ends with
`eos`; x is `bos` and the words before, y the words. Tags: x is the share of each of 10,000 words
among those words of sentence and title that are in the vocabulary, y which of 500 tags there are.

Ids of words are 0 pad, 1..V the vocabulary, V + 1 any other word, V + 2 begin, V + 3 end.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Callable, Mapping, Sequence

import jax.numpy as jnp
import numpy as np

from fljax.core.archives import read_bytes, read_members, refused
from fljax.core.data_files import missing_files, resolve_data_dir
from fljax.core.values import COUNT, Field, checked
from fljax.data.dataset import FederatedDataset
from fljax.data.readers.gathering import Piece
from fljax.data.readers.population import population
from fljax.data.readers.records import Record
from fljax.data.sources.tff_files import tff_cache, with_few_test_rows

PAD = 0
_MOST_BYTES = 1 << 30  # the words are some hundred MB
_DATABASE = "stackoverflow.sqlite"
# Users who never train are told from the others by their ids, so both may be test rows.
_SPLITS = {"train": "train", "val": "heldout", "test": "test"}
_LENGTH = Field(20, int, COUNT)
_SIZE = Field(10_000, int, COUNT)
_MOST = Field(None, int, COUNT, optional=True)


def stackoverflow_nwp(
    *,
    vocabulary_size: int = 10_000,
    sequence_length: int = 20,
    rows_per_user: int | None = None,
    test_rows: int | None = 10_000,
    data_dir=None,
    cache_dir=None,
    **clients,
) -> FederatedDataset:
    """The next word on Stack Overflow: 342,477 users, 135,818,730 sentences, x int[20], y int[20].

    Reads `stackoverflow/stackoverflow.sqlite.lzma` of the data directory, unpacked or not, and
    `stackoverflow/stackoverflow.word_count`, or the `.tar.bz2` that has it, once: the cache that is
    made of it takes some 14 GB. Sentences from 2018 on are the test set; users who never train are
    the `held_out` clients. Label 0 is padding and not to be scored.

    Args:
      vocabulary_size: V; the model has V + 4 outputs.
      sequence_length: Words of a sentence that are kept.
      rows_per_user: The first so many sentences of each user train; Reddi et al. take 1000. None:
        all.
      test_rows: So many rows, evenly spaced, are tested on, and as many of the held-out users;
        Reddi et al. validate on 10,000. None: all 33 million.
      data_dir: See `fljax.core.data_files.resolve_data_dir`.
      cache_dir: See `fljax.data.readers.cache.cached`.
      **clients: As in `mnist`; the default partition is "natural".

    Raises:
      FileNotFoundError: If a file is missing.
      ValueError: If a file is truncated or corrupt, or the partition is not possible.

    Example:
      >>> dataset = data.stackoverflow_nwp(num_clients=1000)  # doctest: +SKIP
    """
    length = checked("sequence_length", sequence_length, _LENGTH)
    words, path = _vocabulary("word", "vocabulary_size", vocabulary_size, data_dir)
    dtype = np.uint16 if len(words) + 4 <= 1 << 16 else np.int32

    def rows(record: Record) -> Piece:
        found = next_words(_texts(record, "tokens"), words, length).astype(dtype)
        return _piece(record, found[:, :-1], found[:, 1:])

    return _dataset(
        "stackoverflow_nwp", rows, {"vocabulary": len(words), "length": length}, {"words": path},
        rows_per_user, test_rows, data_dir, cache_dir,
        kind="next_token", num_classes=len(words) + 4, preprocess=_to_int32, **clients,
    )  # fmt: skip


def stackoverflow_lr(
    *,
    vocabulary_size: int = 10_000,
    tags: int = 500,
    max_words: int = 128,
    rows_per_user: int | None = None,
    test_rows: int | None = 10_000,
    data_dir=None,
    cache_dir=None,
    **clients,
) -> FederatedDataset:
    """Tags on Stack Overflow: x float32[10000] shares of words, y uint8[500] tags, 342,477 users.

    Reads the files of `stackoverflow_nwp`, and `stackoverflow/stackoverflow.tag_count`, or the
    `.tar.bz2` that has it. Rows hold ids of words, 256 bytes each, of which shares are made inside
    the compiled program. For the task "multi_label".

    Args:
      vocabulary_size: V, the length of x.
      tags: T, the length of y.
      max_words: Words of the vocabulary that are kept of a sentence with its title.
      rows_per_user, test_rows, data_dir, cache_dir: As in `stackoverflow_nwp`.
      **clients: As in `mnist`; the default partition is "natural".

    Raises:
      FileNotFoundError: If a file is missing.
      ValueError: If a file is truncated or corrupt, or the partition is not possible.

    Example:
      >>> dataset = data.stackoverflow_lr(num_clients=1000)  # doctest: +SKIP
    """
    width = checked("max_words", max_words, _LENGTH)
    words, word_path = _vocabulary("word", "vocabulary_size", vocabulary_size, data_dir)
    tag_ids, tag_path = _vocabulary("tag", "tags", tags, data_dir)
    dtype = np.uint16 if len(words) < 1 << 16 else np.int32

    def rows(record: Record) -> Piece:
        both = zip(_texts(record, "tokens"), _texts(record, "title"), strict=True)
        x = bags([f"{text} {title}" for text, title in both], words, width).astype(dtype)
        return _piece(record, x, tag_sets(_texts(record, "tags"), tag_ids))

    options = {"vocabulary": len(words), "tags": len(tag_ids), "width": width}
    return _dataset(
        "stackoverflow_lr", rows, options, {"words": word_path, "tags": tag_path},
        rows_per_user, test_rows, data_dir, cache_dir,
        kind="targets", preprocess=shares_of_words(len(words)), **clients,
    )  # fmt: skip


def next_words(texts: Sequence[str], ids: Mapping[str, int], length: int) -> np.ndarray:
    """Returns int32[texts, length + 1], each sentence as ids from `bos` on, padded.

    Args:
      texts: Words with a space between each two.
      ids: {word: 1..V}.
      length: Words that are kept, and so many ids to predict.
    """
    other = len(ids) + 1
    found = np.full((len(texts), length + 1), PAD, np.int32)
    found[:, 0] = other + 1
    for row, text in enumerate(texts):
        words = text.split(" ")[:length]
        found[row, 1 : len(words) + 1] = [ids.get(word, other) for word in words]
        if len(words) < length:
            found[row, len(words) + 1] = other + 2
    return found


def bags(texts: Sequence[str], ids: Mapping[str, int], width: int) -> np.ndarray:
    """Returns int32[texts, width], the ids of the words that the vocabulary has, padded.

    Words beyond `width` are left out.
    """
    found = np.full((len(texts), width), PAD, np.int32)
    for row, text in enumerate(texts):
        known = [ids[word] for word in text.split() if word in ids][:width]
        found[row, : len(known)] = known
    return found


def tag_sets(texts: Sequence[str], ids: Mapping[str, int]) -> np.ndarray:
    """Returns uint8[texts, T], 1 for the tags that there are; they stand between `|`."""
    found = np.zeros((len(texts), len(ids)), np.uint8)
    for row, text in enumerate(texts):
        found[row, [ids[tag] - 1 for tag in text.split("|") if tag in ids]] = 1
    return found


def shares_of_words(num_words: int):
    """Returns a `preprocess` that makes x float32[B, V] of bags of ids: each word's share.

    Args:
      num_words: V.

    Example:
      >>> shares = shares_of_words(3)  # doctest: +SKIP
    """

    def preprocess(batch):
        ids = batch["x"].astype(jnp.int32)
        known = ids > PAD
        total = jnp.maximum(known.sum(-1, keepdims=True), 1)
        rows = jnp.arange(ids.shape[0])[:, None]
        counts = jnp.zeros((ids.shape[0], num_words + 1), jnp.float32).at[rows, ids].add(known)
        return {**batch, "x": counts[:, 1:] / total}

    return preprocess


def _dataset(
    name: str,
    rows: Callable[[Record], Piece],
    options: Mapping[str, int],
    files: Mapping[str, pathlib.Path],
    rows_per_user: int | None,
    test_rows: int | None,
    data_dir,
    cache_dir,
    **clients,
) -> FederatedDataset:
    """Returns the data set of rows as one of the two tasks has them."""
    test_rows = checked("test_rows", test_rows, _MOST)
    cache = tff_cache(
        "stackoverflow",
        _DATABASE,
        {},
        _SPLITS,
        rows,
        options={"task": name, **options},
        files=files,
        limit=checked("rows_per_user", rows_per_user, _MOST),
        data_dir=data_dir,
        cache_dir=cache_dir,
    )
    return with_few_test_rows(population(cache, name=name, **clients), test_rows)


def _piece(record: Record, x: np.ndarray, y: np.ndarray) -> Piece:
    split = "train" if record.split == "train" else "test"
    return Piece(split, record.client, {"x": x, "y": y}, record.where)


def _texts(record: Record, name: str) -> Sequence[str]:
    if name not in record.features:
        raise ValueError(f"{record.where}: has no feature {name!r}, as Stack Overflow's data have")
    return record.features[name]


def _to_int32(batch):
    return {**batch, "x": batch["x"].astype(jnp.int32), "y": batch["y"].astype(jnp.int32)}


def _vocabulary(kind: str, option: str, size: int, data_dir) -> tuple[dict[str, int], pathlib.Path]:
    """Returns ({word or tag: 1, 2, ...}, the file): the most frequent ones, so many of them."""
    size = checked(option, size, _SIZE)
    root = resolve_data_dir(data_dir)
    name = f"stackoverflow.{kind}_count"
    there = [
        path
        for folder in (root / "stackoverflow", root)
        for path in (folder / name, folder / f"{name}.tar.bz2")
        if path.is_file()
    ]
    if not there:
        wanted = [f"stackoverflow/{name}.tar.bz2"]
        also = f"data.download('{name}.tar.bz2') fetches it."
        raise FileNotFoundError(missing_files(f"stackoverflow ({kind}s)", wanted, root, also))
    path = there[0]
    if path.suffix == ".bz2":
        [content] = read_members(path, [name], _MOST_BYTES)
    else:
        content = read_bytes(path, _MOST_BYTES)
    try:
        counts = _COUNTS[kind](content.decode())
    except (ValueError, AttributeError, TypeError) as error:
        raise refused(path, f"holds no counts of {kind}s ({error}): download it again") from None
    if len(counts) < size:
        raise refused(path, f"has {len(counts):,} {kind}s, and {option} = {size:,} are asked for")
    return {entry: number for number, entry in enumerate(counts[:size], 1)}, path


def _words(text: str) -> list[str]:
    """Returns words of lines of a word and its count, the most frequent first as they stand."""
    lines = [line.split() for line in text.splitlines() if line.strip()]
    if any(len(line) != 2 or not line[1].isdigit() for line in lines):
        raise ValueError("a line is not a word and a number")
    return list(dict.fromkeys(word for word, _ in lines))


def _tags(text: str) -> list[str]:
    """Returns tags of a JSON object of counts, the most frequent first, else in its order."""
    counts = json.loads(text)
    return sorted(counts, key=lambda tag: -counts[tag])


_COUNTS = {"word": _words, "tag": _tags}
