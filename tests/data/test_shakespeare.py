"""Tokenization of Shakespeare against a character-by-character reference."""

import gzip
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fljax.data import shakespeare
from fljax.data.sources.shakespeare import BOS, EOS, NUM_IDS, OOV, PAD, VOCABULARY, tokenize


def reference_chunks(snippet, length):
    ids = [BOS]
    for byte in snippet.encode():
        ids.append(VOCABULARY.index(chr(byte)) + 1 if chr(byte) in VOCABULARY else OOV)
    ids.append(EOS)
    while len(ids) % (length + 1):
        ids.append(PAD)
    return [ids[i : i + length + 1] for i in range(0, len(ids), length + 1)]


TEXTS = st.lists(st.text(st.sampled_from(VOCABULARY + "}é"), max_size=12), max_size=5)


@settings(max_examples=60, deadline=None)
@given(TEXTS, st.integers(1, 7))
def test_tokenize_equals_the_reference(snippets, length):
    ids, chunks = tokenize(snippets, length)
    expected = [reference_chunks(snippet, length) for snippet in snippets]
    assert ids.dtype == np.uint8 and chunks.tolist() == [len(e) for e in expected]
    assert ids.tolist() == [chunk for e in expected for chunk in e]


def test_vocabulary():
    assert len(VOCABULARY) == len(set(VOCABULARY)) == 86
    assert (PAD, OOV, BOS, EOS, NUM_IDS) == (0, 87, 88, 89, 90)


def write(folder, content):
    (folder / "shakespeare_tff").mkdir()
    (folder / "shakespeare_tff" / "shakespeare_tff.json.gz").write_bytes(gzip.compress(content))


def test_roles_are_clients_of_both_splits(tmp_path):
    splits = {
        "train": {"B": ["to be", "or"], "A": ["x" * 100]},
        "test": {"A": ["not"], "B": ["y" * 100]},
    }
    write(tmp_path, json.dumps(splits).encode())
    dataset = shakespeare(data_dir=tmp_path)
    assert dataset.client_ids.tolist() == ["A", "B"]
    assert dataset.train.partition.sizes.tolist() == [2, 2]
    assert dataset.test.partition.sizes.tolist() == [1, 2]
    assert dataset.num_classes == 90 and dataset.kind == "next_token"
    assert dataset.train.examples.arrays["x"].dtype == np.uint8
    batch = dataset.preprocess(dataset.train.examples.take(dataset.train.partition.rows(1)))
    assert batch["x"].dtype == batch["y"].dtype == np.int32
    assert batch["x"][0, 0] == BOS and batch["x"][0, 1] == batch["y"][0, 0]
    assert "".join(VOCABULARY[i - 1] for i in batch["y"][0, :5]) == "to be"
    assert batch["y"][0, 5] == EOS and not batch["y"][0, 6:].any()


@pytest.mark.parametrize("content", [b'{"train": {', b'["train", "test"]', b'{"train": {}}'])
def test_wrong_content_is_refused(content, tmp_path):
    write(tmp_path, content)
    with pytest.raises(ValueError, match="shakespeare_tff.json.gz"):
        shakespeare(data_dir=tmp_path)
