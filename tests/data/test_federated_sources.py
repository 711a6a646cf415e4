"""EMNIST, CIFAR-100 and Stack Overflow: preprocessing of the literature, on files that tests write.

None of them is at hand. Files are of TensorFlow Federated's formats, with a few rows.
"""

import io
import json
import tarfile

import jax
import numpy as np
import pytest
from federated_formats import write_tff

from fljax import data
from fljax.data.sources import images, stackoverflow, tff_files

RNG = np.random.default_rng(0)


def examples_of(split):
    """Yields (client, x rows, y rows) of a split, in the order of clients."""
    for client in range(split.partition.num_clients):
        rows = split.examples.take(split.partition.rows(client))
        yield client, np.asarray(rows["x"]), np.asarray(rows["y"])


@pytest.fixture
def root(tmp_path):
    for name in ("emnist", "cifar100", "stackoverflow"):
        (tmp_path / name).mkdir()
    return tmp_path


def load(name, root, **options):
    return data.load(name, data_dir=root, cache_dir=root / "cache", **options)


@pytest.mark.parametrize("packed", ["", ".lzma"])
def test_emnist_has_writers_with_white_paper(root, packed):
    def image(label):
        return {"pixels": RNG.integers(0, 256, (28, 28)) / np.float32(255), "label": label}

    clients = {"f0001_41": [image(3), image(61)], "f0002_10": [image(40)]}
    digits = {"f0001_41": [image(3)]}
    splits = {"all_train": clients, "all_test": clients, "digits_only_train": digits,
              "digits_only_test": digits}  # fmt: skip
    write_tff(root / "emnist" / f"emnist_all.sqlite{packed}", splits)
    dataset = load("emnist", root)
    assert dataset.client_ids.tolist() == list(clients) and dataset.num_classes == 62
    assert [dataset.class_names[k] for k in (3, 40, 61)] == ["3", "e", "z"]
    for split in (dataset.train, dataset.test):
        for (_, x, y), written in zip(examples_of(split), clients.values(), strict=True):
            assert x.dtype == np.uint8 and y.tolist() == [row["label"] for row in written]
            seen = np.asarray(dataset.preprocess({"x": x})["x"])[..., 0]
            np.testing.assert_allclose(seen, [row["pixels"] for row in written], atol=1e-6)
    inverted = load("emnist", root, invert=True)
    other = np.asarray(inverted.preprocess({"x": x})["x"])[..., 0]
    np.testing.assert_allclose(other, 1 - seen, atol=1e-6)
    ten = load("emnist", root, classes=10)
    assert ten.num_classes == 10 and ten.train.num_rows == 1 and ten.name == "emnist_digits"
    with pytest.raises(ValueError, match="classes = 26"):
        load("emnist", root, classes=26)
    clients["f0002_10"][0]["pixels"] = np.full((28, 28), np.float32(2))
    (root / "emnist" / f"emnist_all.sqlite{packed}").unlink()
    write_tff(root / "emnist" / f"emnist_all.sqlite{packed}", splits)
    with pytest.raises(ValueError, match="not 28 x 28 from 0 to 1"):
        load("emnist", root)


def test_cifar100_has_clients_of_two_splits_that_share_numbers(root):
    def image(label):
        pixels = RNG.integers(0, 256, (32, 32, 3))
        return {"image": pixels, "label": label, "coarse_label": label // 5}

    train = {"0": [image(7), image(99)], "1": [image(5)]}
    test = {"0": [image(8)], "1": [image(1), image(2)]}
    # in the data directory itself, where `data.download` puts it
    write_tff(root / "cifar100.sqlite", {"train": train, "test": test})
    dataset = load("cifar100", root)
    assert dataset.client_ids.tolist() == ["0", "1"]
    assert dataset.held_out_ids.tolist() == ["test_0", "test_1"]
    assert dataset.test.partition is None and dataset.test.num_rows == 3
    for split, clients in ((dataset.train, train), (dataset.held_out, test)):
        for (_, x, y), written in zip(examples_of(split), clients.values(), strict=True):
            np.testing.assert_array_equal(x, [row["image"] for row in written])
            assert y.tolist() == [row["label"] for row in written]


def test_cifar100_of_the_official_archive_is_divided_by_any_partition(root):
    records = RNG.integers(0, 256, (60, 3074), np.uint8)
    records[:, 0], records[:, 1] = np.arange(60) % 20, np.arange(60) % 100
    with tarfile.open(root / "cifar-100-binary.tar.gz", "w:gz") as archive:
        for name, rows in (("train", records[:50]), ("test", records[50:])):
            info = tarfile.TarInfo(f"cifar-100-binary/{name}.bin")
            info.size = rows.nbytes
            archive.addfile(info, io.BytesIO(rows.tobytes()))
    dataset = load("cifar100", root, partition="iid", num_clients=5)
    arrays = dataset.train.examples.arrays
    assert arrays["y"].tolist() == list(range(50)) and dataset.test.num_rows == 10
    planes = records[:50, 2:].reshape(-1, 3, 32, 32)
    np.testing.assert_array_equal(arrays["x"], planes.transpose(0, 2, 3, 1))
    with pytest.raises(FileNotFoundError, match=r"cifar100.sqlite.lzma\n"):
        load("cifar100", root)
    path = root / "cifar-100-binary"
    path.mkdir()
    records[3, 1] = 100
    (path / "train.bin").write_bytes(records.tobytes())
    (path / "test.bin").write_bytes(records[:2].tobytes())
    with pytest.raises(ValueError, match="train.bin holds labels that are not 0 to 99"):
        images.cifar_binary(root, "cifar100", "none", ["cifar-100-binary/train.bin"], (20, 100))


WORDS = ["the", ".", "cat", "sat"]
TAGS = {"java": 5, "python": 9, "c": 5, "rust": 1}


def sentence(tokens, title="the cat", tags="java|rust|perl"):
    return {"tokens": tokens, "title": title, "tags": tags, "score": 3}


@pytest.fixture
def posts(root):
    folder = root / "stackoverflow"
    (folder / "stackoverflow.word_count").write_text("".join(f"{w} 7\n" for w in [*WORDS, "on"]))
    content = json.dumps(TAGS).encode()
    with tarfile.open(folder / "stackoverflow.tag_count.tar.bz2", "w:bz2") as archive:
        info = tarfile.TarInfo("stackoverflow.tag_count")
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))
    users = {
        "1": [sentence("the cat sat on the mat . the end"), sentence("dogs")],
        "2": [sentence("cat . cat", "", "c")] * 3,
    }
    held_out = {"10": [sentence("the")] * 2}
    splits = {"train": users, "heldout": held_out, "test": {"2": [sentence("sat")] * 5}}
    write_tff(folder / "stackoverflow.sqlite.lzma", splits)
    return root


def test_next_words_are_those_of_tff(posts):
    """Ids by hand: 1..4 the vocabulary, 5 any other word, 6 begin, 7 end, 0 padding."""
    dataset = load("stackoverflow_nwp", posts, vocabulary_size=4, sequence_length=6)
    assert dataset.kind == "next_token" and dataset.num_classes == 8
    assert dataset.client_ids.tolist() == ["1", "2"]
    found = {client: (x.tolist(), y.tolist()) for client, x, y in examples_of(dataset.train)}
    assert found[0] == (
        [[6, 1, 3, 4, 5, 1], [6, 5, 7, 0, 0, 0]],
        [[1, 3, 4, 5, 1, 5], [5, 7, 0, 0, 0, 0]],
    )
    assert found[1] == ([[6, 3, 2, 3, 7, 0]] * 3, [[3, 2, 3, 7, 0, 0]] * 3)
    assert dataset.held_out_ids.tolist() == ["10"] and dataset.held_out.num_rows == 2
    assert dataset.test.partition.sizes.tolist() == [0, 5]
    assert (
        dataset.preprocess({"x": found[0][0] and np.uint16([[6]]), "y": np.uint16([[1]])})[
            "x"
        ].dtype
        == np.int32
    )
    few = load(
        "stackoverflow_nwp", posts, vocabulary_size=4, sequence_length=6, rows_per_user=2,
        test_rows=3,
    )  # fmt: skip
    assert few.train.partition.sizes.tolist() == [2, 2]
    assert few.test.partition.sizes.tolist() == [0, 3] and few.held_out.num_rows == 2
    pooled = load("stackoverflow_nwp", posts, vocabulary_size=4, sequence_length=6,
                  partition="iid", num_clients=2, test_rows=4)  # fmt: skip
    assert pooled.test.partition is None and pooled.test.num_rows == 4


def test_bags_of_words_and_tags_are_those_of_tff(posts):
    """x is the share of each word among those of the vocabulary in sentence and title."""
    dataset = load("stackoverflow_lr", posts, vocabulary_size=4, tags=3)
    assert dataset.kind == "targets" and dataset.train.examples.arrays["x"].dtype == np.uint16
    (_, x, y), (_, x2, y2) = examples_of(dataset.train)
    seen = np.asarray(jax.jit(dataset.preprocess)({"x": x})["x"])
    # "the cat sat on the mat . the end" + "the cat": the 4, cat 2, sat 1, . 1
    np.testing.assert_allclose(seen, [[4 / 8, 1 / 8, 2 / 8, 1 / 8], [1 / 2, 0, 1 / 2, 0]])
    # tags by count, equal ones as they stand: python, java, c
    assert y.tolist() == [[0, 1, 0], [0, 1, 0]] and y2.tolist() == [[0, 0, 1]] * 3
    nothing = np.asarray(dataset.preprocess({"x": np.zeros((1, 128), np.uint16)})["x"])
    assert not nothing.any()
    cut = load("stackoverflow_lr", posts, vocabulary_size=4, tags=3, max_words=2)
    (_, x, _), _ = examples_of(cut.train)
    assert x.tolist() == [[1, 3], [1, 3]]


def test_vocabularies_that_do_not_do_are_named(posts):
    with pytest.raises(ValueError, match=r"word_count has 5 words, and vocabulary_size = 10,000"):
        load("stackoverflow_nwp", posts)
    with pytest.raises(ValueError, match=r"tag_count.tar.bz2 has 4 tags, and tags = 500"):
        load("stackoverflow_lr", posts, vocabulary_size=4)
    path = posts / "stackoverflow" / "stackoverflow.word_count"
    path.write_text("the\n")
    with pytest.raises(ValueError, match="holds no counts of words"):
        load("stackoverflow_nwp", posts, vocabulary_size=1)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"stackoverflow.word_count.tar.bz2\n"):
        load("stackoverflow_nwp", posts, vocabulary_size=1)


def test_a_new_vocabulary_makes_a_new_cache(posts):
    first = load("stackoverflow_nwp", posts, vocabulary_size=4, sequence_length=6)
    words = posts / "stackoverflow" / "stackoverflow.word_count"
    words.write_text("".join(f"{word} 7\n" for word in ["sat", *WORDS[:3]]))
    other = load("stackoverflow_nwp", posts, vocabulary_size=4, sequence_length=6)
    assert [d.test.examples.arrays["y"][-1, 0] for d in (first, other)] == [4, 1]


def test_first_rows_of_each_client_are_kept_whatever_the_blocks():
    from fljax.data.readers.blocks import Opened

    blocks = [
        {"client": np.array(["a", "b", "a", "a"]), "x": np.arange(4)},
        {"client": np.array(["b", "a", "b", "c"]), "x": np.arange(4, 8)},
        {"split": "test", "client": np.array(["a"] * 3), "x": np.arange(3)},
    ]
    limited = tff_files._limited(Opened(lambda start: iter(blocks[start:])), 2)
    for start in range(3):
        found = [block["x"].tolist() for block in limited.blocks(start)]
        assert found == [[0, 1, 2], [4, 7], [0, 1, 2]][start:]


def test_words_are_numbered_as_in_the_paper():
    ids = {"a": 1, "b": 2}
    assert stackoverflow.next_words(["a b", "x", "a a a a"], ids, 2).tolist() == [
        [4, 1, 2],
        [4, 3, 5],
        [4, 1, 1],
    ]
