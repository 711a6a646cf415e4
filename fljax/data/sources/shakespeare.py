"""Federated Shakespeare: next-character prediction, one client per speaking role.

The data of LEAF (Caldas et al., arXiv:1812.01097) and TensorFlow Federated, with the preprocessing
that TensorFlow Federated's baselines and Reddi et al. (arXiv:2003.00295) use. Each snippet of a
role becomes `bos, characters, eos`, is padded with `pad` to a multiple of 81 ids, and cut into
chunks of 81. A chunk is one example: x its first 80 ids, y its last 80. Two consequences, both
upstream's: a chunk starts afresh, so that the pair across a cut is not learned; and a snippet whose
length is one more than a multiple of 81 ends in a chunk with nothing to predict (y all padding).
FedJAX instead joins all snippets of a role before it cuts, and so loses no pair.

Ids are TensorFlow Federated's: 0 pad, 1..86 the characters of `VOCABULARY`, 87 any other character,
88 begin, 89 end of snippet.
"""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from fljax.core.archives import refused
from fljax.core.data_files import find_file, missing_files, read_json, resolve_data_dir
from fljax.data.arrays import from_arrays
from fljax.data.dataset import FederatedDataset
from fljax.data.partitions.partition_arguments import check_count
from fljax.data.readers.texts import chunked, token_names

# The order of TensorFlow Federated's text generation tutorial, so that ids agree with other work.
VOCABULARY = (
    "dhlptx@DHLPTX $(,048cgkoswCGKOSW[_#'/37;?bfjnrvzBFJNRVZ\"&*.26:\naeimquyAEIMQUY]!%)-159\r"
)
PAD = 0
OOV = len(VOCABULARY) + 1
BOS = len(VOCABULARY) + 2
EOS = len(VOCABULARY) + 3
NUM_IDS = len(VOCABULARY) + 4

_MOST_BYTES = 256 << 20  # the texts are 4 MB
_FOLDER, _FILE = "shakespeare_tff", "shakespeare_tff.json"


def shakespeare(*, data_dir=None, sequence_length: int = 80, **clients) -> FederatedDataset:
    """Next-character prediction over 715 speaking roles; the test split has the same clients.

    Reads `shakespeare_tff/shakespeare_tff.json.gz` of the data directory: one JSON object
    {"train": {role: [text, ...]}, "test": {...}}. x and y are uint8[80] in memory and int32[80] to
    the model; label 0 is padding and not to be scored.

    Args:
      data_dir: See `fljax.core.data_files.resolve_data_dir`.
      sequence_length: Characters to predict in one example.
      **clients: partition, num_clients, seed, val_fraction and the partition's options, as in
        `from_arrays`; the default partition is "natural".

    Raises:
      FileNotFoundError: If the file is missing.
      ValueError: If the file is truncated or corrupt, or the partition is not possible.

    Example:
      >>> dataset = data.shakespeare(sequence_length=80)  # doctest: +SKIP
    """
    sequence_length = check_count("sequence_length", sequence_length)
    splits = _read(data_dir)
    x, y, roles = _examples(splits["train"], sequence_length)
    x_test, y_test, test_roles = _examples(splits["test"], sequence_length)
    return from_arrays(
        x,
        y,
        client_ids=roles,
        x_test=x_test,
        y_test=y_test,
        test_client_ids=test_roles,
        class_names=token_names(VOCABULARY),
        preprocess=_to_int32,
        name="shakespeare",
        kind="next_token",
        **clients,
    )


def tokenize(snippets: Sequence[str], sequence_length: int) -> tuple[np.ndarray, np.ndarray]:
    """Turns snippets of text into chunks of ids, as the module's docstring says.

    Args:
      snippets: Texts; each starts chunks of its own.
      sequence_length: L; chunks have L + 1 ids.

    Returns:
      (uint8[chunks, L + 1] ids, int64[snippets] number of chunks of each snippet).
    """
    table = _id_of_byte()
    encoded = [table[np.frombuffer(snippet.encode(), np.uint8)] for snippet in snippets]
    return chunked(encoded, sequence_length + 1, BOS, EOS, np.uint8)


def _id_of_byte() -> np.ndarray:
    """Returns uint8[256], the id of each byte."""
    table = np.full(256, OOV, np.uint8)
    table[np.frombuffer(VOCABULARY.encode(), np.uint8)] = np.arange(1, len(VOCABULARY) + 1)
    return table


def _examples(texts: dict[str, list[str]], sequence_length: int):
    """Returns (x uint8[rows, L], y uint8[rows, L], role [rows]) of one split."""
    snippets = [snippet for role in texts.values() for snippet in role]
    ids, chunks = tokenize(snippets, sequence_length)
    snippet_role = np.repeat(list(texts), [len(role) for role in texts.values()])
    return ids[:, :-1].copy(), ids[:, 1:].copy(), np.repeat(snippet_role, chunks)


def _to_int32(batch):
    return {**batch, "x": batch["x"].astype(jnp.int32), "y": batch["y"].astype(jnp.int32)}


def _read(data_dir) -> dict[str, dict[str, list[str]]]:
    root = resolve_data_dir(data_dir)
    path = find_file(root / _FOLDER, _FILE)
    if path is None:
        raise FileNotFoundError(missing_files("shakespeare", [f"{_FOLDER}/{_FILE}.gz"], root))
    splits = read_json(path, _MOST_BYTES)
    if not isinstance(splits, dict) or not {"train", "test"} <= splits.keys():
        raise refused(path, 'must hold one object with the keys "train" and "test"')
    for name in ("train", "test"):
        _check_texts(splits[name], path, name)
    return splits


def _check_texts(roles: Any, path: pathlib.Path, name: str) -> None:
    """Raises ValueError unless a split is {role: [text, ...]}, and has texts that are UTF-8."""
    if not isinstance(roles, dict):
        raise refused(path, f'must hold {{role: [text, ...]}} under "{name}", not {_said(roles)}')
    for role, snippets in roles.items():
        if not isinstance(snippets, list):
            raise refused(path, f"must hold a list of texts for {role!r}, not {_said(snippets)}")
        for snippet in snippets:
            if not isinstance(snippet, str):
                raise refused(path, f"must hold texts for {role!r}, not {_said(snippet)}")
            try:
                snippet.encode()
            except UnicodeEncodeError as error:
                raise refused(
                    path, f"holds a text of {role!r} that is not UTF-8: {error}"
                ) from None
    if not any(roles.values()):
        raise refused(path, f'holds no text under "{name}"')


def _said(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 40 else f"{text[:36]} ..."
