"""LEAF, TensorFlow Federated, FedJAX: one population in all formats is one data set."""

import json

import numpy as np
import pytest
from federated_formats import tf_example, write_fedjax, write_leaf, write_tff

from fljax import data
from fljax.data.readers import json_stream
from fljax.data.readers.texts import Vocabulary
from fljax.data.readers.tf_example import parse

SIZES = {"train": {"ann": 3, "bob": 1, "cy": 5}, "test": {"ann": 2, "cy": 1, "dee": 2}}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FLJAX_CACHE_DIR", str(tmp_path / "cache"))


def population():
    """Returns {split: {client: (x float32[rows, 4], texts of labels)}}."""
    rng = np.random.default_rng(0)
    return {
        split: {
            client: (
                rng.normal(size=(rows, 4)).astype(np.float32),
                rng.choice(["cat", "dog", "emu"], rows).tolist(),
            )
            for client, rows in clients.items()
        }
        for split, clients in SIZES.items()
    }


def as_leaf(folder, rows):
    return write_leaf(
        folder,
        {
            split: {client: {"x": x.tolist(), "y": y} for client, (x, y) in clients.items()}
            for split, clients in rows.items()
        },
    )


def as_tff(path, rows, **options):
    return write_tff(
        path,
        {
            split: {
                client: [{"x": row, "label": label} for row, label in zip(x, y, strict=True)]
                for client, (x, y) in clients.items()
            }
            for split, clients in rows.items()
        },
        **options,
    )


def as_table(rows, split):
    return {
        "user": np.repeat(list(rows[split]), [len(y) for _, y in rows[split].values()]).tolist(),
        **{
            f"x{column}": [row[column] for x, _ in rows[split].values() for row in x.tolist()]
            for column in range(4)
        },
        "label": [label for _, y in rows[split].values() for label in y],
    }


def as_csv(folder, rows):
    paths = []
    for split in rows:
        table = as_table(rows, split)
        values = zip(*table.values(), strict=True)
        lines = [",".join(table), *(",".join(map(str, row)) for row in values)]
        paths.append(folder / f"{split}.csv")
        paths[-1].write_text("\n".join(lines) + "\n")
    return paths


def as_parquet(folder, rows):
    import pyarrow
    from pyarrow import parquet

    paths = [folder / f"{split}.parquet" for split in rows]
    for split, path in zip(rows, paths, strict=True):
        parquet.write_table(pyarrow.table(as_table(rows, split)), path)
    return paths


def as_fedjax(folder, rows):
    return [
        write_fedjax(
            folder / f"{split}.sqlite",
            {
                client: {"x": x, "label": [label.encode() for label in y]}
                for client, (x, y) in clients.items()
            },
        )
        for split, clients in rows.items()
    ]


def assert_equal(dataset, other):
    assert (dataset.kind, dataset.num_classes) == (other.kind, other.num_classes)
    assert dataset.class_names == other.class_names
    assert np.array_equal(dataset.client_ids, other.client_ids)
    assert np.array_equal(dataset.held_out_ids, other.held_out_ids)
    for role in ("train", "test", "held_out"):
        split, expected = getattr(dataset, role), getattr(other, role)
        assert (split is None) == (expected is None)
        if split is None:
            continue
        assert np.array_equal(split.partition.sizes, expected.partition.sizes)
        for name in ("x", "y"):
            values, wanted = (s.examples.take(s.rows())[name] for s in (split, expected))
            assert values.dtype == wanted.dtype and np.array_equal(values, wanted)


def from_arrays(rows):
    columns = {}
    for split, clients in rows.items():
        columns[split] = (
            np.concatenate([x for x, _ in clients.values()]),
            [label for _, y in clients.values() for label in y],
            np.repeat(list(clients), [len(y) for _, y in clients.values()]),
        )
    (x, y, ids), (x_test, y_test, test_ids) = columns["train"], columns["test"]
    return data.from_arrays(
        x, y, client_ids=ids, x_test=x_test, y_test=y_test, test_client_ids=test_ids
    )


def test_one_population_in_all_formats_is_one_data_set(tmp_path):
    rows = population()
    expected = from_arrays(rows)
    leaf = data.load("leaf", path=str(as_leaf(tmp_path / "leaf", rows)))
    assert_equal(leaf, expected)
    for name in ("a.sqlite", "b.sqlite.lzma"):
        tff = data.load("tff", path=str(as_tff(tmp_path / name, rows)))
        assert_equal(tff, expected)
    one_by_one = as_tff(tmp_path / "c.sqlite", rows, packed=False)
    assert_equal(data.load("tff", path=str(one_by_one)), expected)
    train, test = as_fedjax(tmp_path, rows)
    assert_equal(data.load("fedjax", path=str(train), test_path=str(test)), expected)
    for name, write in (("csv", as_csv), ("parquet", as_parquet)):
        train, test = write(tmp_path, rows)
        how = {"client": "user", "label": "label"}
        assert_equal(data.load(name, path=str(train), test_path=str(test), **how), expected)


def test_features_side_by_side_shapes_types_and_targets(tmp_path):
    """A database stores numbers flat and wide, and what they are to be is said."""
    rows = [{"age": 3, "height": 1.5, "image": [0, 255, 7, 9], "score": n / 2} for n in range(3)]
    path = str(
        write_tff(tmp_path / "a.sqlite", {"default_split": {"ann": rows[:2], "bob": rows[2:]}})
    )
    both = data.load("tff", path=path, features=["age", "height"], target="score")
    assert both.kind == "targets" and both.train.examples.take([2])["y"].tolist() == [1.0]
    assert both.train.examples.take([0])["x"].tolist() == [[3.0, 1.5]]
    one = data.load("tff", path=path, features="age", target="score")
    assert one.train.examples.take([0])["x"].tolist() == [[3.0]]
    how = {"features": "image", "shape": [2, 2, 1], "dtype": "uint8", "label": "age"}
    how["num_classes"] = 4
    images = data.load("tff", path=path, splits={"train": "default_split"}, **how)
    x = images.train.examples.take([0])["x"]
    assert x.dtype == np.uint8 and x.tolist() == [[[[0], [255]], [[7], [9]]]]
    assert images.preprocess is not None


def shakespeare_like():
    return {
        "train": {"ROMEO": ["to be", "or"], "NURSE": ["not to be, that"]},
        "test": {"ROMEO": ["be"], "NURSE": ["zoo"]},
    }


def test_texts_are_sequences_of_ids_in_all_formats(tmp_path):
    texts = shakespeare_like()
    of_tff = {
        split: {client: [{"snippets": text} for text in some] for client, some in clients.items()}
        for split, clients in texts.items()
    }
    tff = write_tff(tmp_path / "a.sqlite", of_tff)
    train, test = (
        write_fedjax(
            tmp_path / f"{split}.sqlite",
            {c: {"snippets": [text.encode() for text in some]} for c, some in clients.items()},
        )
        for split, clients in texts.items()
    )
    how = {"text": "characters", "sequence_length": 6}
    dataset = data.load("tff", path=str(tff), **how)
    assert_equal(data.load("fedjax", path=str(train), test_path=str(test), **how), dataset)
    letters = sorted(set("to beornot to be, that"))
    assert (dataset.kind, dataset.num_classes) == ("next_token", len(letters) + 4)
    assert dataset.class_names == ("\0", *letters, "\ufffd", "\u2039", "\u203a")
    ids = {letter: number + 1 for number, letter in enumerate(letters)}
    other, begin, end = len(letters) + 1, len(letters) + 2, len(letters) + 3
    romeo = dataset.client_ids.tolist().index("ROMEO")
    rows = dataset.train.examples.take(dataset.train.partition.rows(romeo))
    whole = [begin, *(ids[letter] for letter in "to be"), end]
    assert rows["x"].tolist() == [whole[:6], [begin, ids["o"], ids["r"], end, 0, 0]]
    assert rows["y"].tolist() == [whole[1:], [ids["o"], ids["r"], end, 0, 0, 0]]
    test_rows = dataset.test.examples.take(dataset.test.rows())["x"].tolist()
    assert [begin, other, ids["o"], ids["o"], end, 0] in test_rows  # no "z" is in training texts
    (tmp_path / "words.txt").write_text("be 9\nto 7\n")
    words = data.load(
        "tff",
        path=str(tff),
        text="words",
        sequence_length=3,
        vocabulary=str(tmp_path / "words.txt"),
    )
    assert words.num_classes == 6
    assert words.train.examples.take([0])["x"].shape == (1, 3)


def test_texts_of_leaf(tmp_path):
    """Shakespeare's next characters, Sent140's tweets and Reddit's sequences of words."""
    users = {"ann": {"x": ["abca", "bcab"], "y": ["b", "c"]}, "bob": {"x": ["cabc"], "y": ["a"]}}
    plays = {"ann": "hamlet", "bob": "lear"}
    folder = write_leaf(tmp_path / "shakespeare", {"train": users, "test": users}, plays)
    shakespeare = data.load("leaf", path=str(folder), text="characters", sequence_length=4)
    assert shakespeare.class_names == ("a", "b", "c")
    assert shakespeare.groups["hierarchy"].tolist() == ["hamlet", "lear"]
    rows = shakespeare.train.examples.take([0, 1, 2])
    assert rows["x"].tolist() == [[1, 2, 3, 1], [2, 3, 1, 2], [3, 1, 2, 3]]
    assert rows["y"].tolist() == [1, 2, 0]

    tweets = {"ann": {"x": [["1", "Sat", "no", "ann", "It's fine, fine"]], "y": [1]},
              "bob": {"x": [["2", "Sun", "no", "bob", "fine !"]], "y": [0]}}  # fmt: skip
    folder = write_leaf(tmp_path / "sent140", {"train": tweets})
    sent140 = data.load("leaf", path=str(folder), text="words", sequence_length=4)
    # words by frequency: fine, then "!", ",", "It's"
    assert sent140.train.examples.take([0, 1])["x"].tolist() == [[4, 1, 3, 1], [1, 2, 0, 0]]

    ann = {
        "x": [[["<BOS>", "hi"], ["you", "<PAD>"]]],
        "y": [{"target_tokens": [["hi", "you"], ["<EOS>", "<PAD>"]]}],
    }
    bob = {"x": [[["<BOS>", "you"]]], "y": [{"target_tokens": [["you", "<EOS>"]]}]}
    comments = {"ann": ann, "bob": bob}
    folder = write_leaf(tmp_path / "reddit", {"train": comments})
    reddit = data.load("leaf", path=str(folder), text="words")
    assert (reddit.kind, reddit.num_classes) == ("next_token", 7)
    assert reddit.train.partition.sizes.tolist() == [2, 1]
    rows = reddit.train.examples.take([0, 1, 2])
    assert rows["x"].tolist() == [[1, 3], [2, 0], [1, 2]]
    assert rows["y"].tolist() == [[3, 2], [4, 0], [2, 4]]  # <EOS> is in no x: an unknown word


def test_examples_of_tensorflow_are_parsed(tmp_path):
    numbers = [0, 1, 127, 128, 300, -1, 2**63 - 1, -(2**63)]
    for packed in (True, False):
        found = parse(tf_example({"i": numbers, "f": [0.5, -2.0], "s": b"\xff"}, packed))
        assert found["i"].tolist() == numbers and found["i"].dtype == np.int64
        assert found["f"].tolist() == [0.5, -2.0] and found["s"] == [b"\xff"]
    whole = tf_example({"label": 7, "pixels": np.arange(9.0)})
    for size in range(1, len(whole)):
        with pytest.raises(ValueError, match="ends inside"):
            parse(whole[:size])
    assert parse(b"") == {}


@pytest.mark.parametrize("chunk", [1, 3, 1 << 20])
def test_json_is_scanned_member_by_member(chunk, tmp_path, monkeypatch):
    monkeypatch.setattr(json_stream, "_CHUNK_BYTES", chunk)
    value = {"a": [1.5, 'é"\\', None], "d": {"u ,": {"x": [1]}, "v": 2, "w": "\u2028"}, "z": [True]}
    path = tmp_path / "a.json"
    for text in (json.dumps(value), json.dumps(value, indent=1, ensure_ascii=False)):
        path.write_text(text)
        found = list(json_stream.members(path, "d"))
        assert found == [
            ("a", None, value["a"]),
            *(("d", key, inner) for key, inner in value["d"].items()),
            ("z", None, [True]),
        ]
        content = path.read_bytes()
        for size in range(0, len(content), 7):
            path.write_bytes(content[:size])
            with pytest.raises(ValueError, match="a.json"):
                list(json_stream.members(path, "d"))
    for broken in ('{"d": {"u": [1 2]}}', '{"d": {"u": 1}} x', '{"d": {"u": 1, "u": 2}}', "[1]"):
        path.write_text(broken)
        with pytest.raises(ValueError, match="is not the JSON expected"):
            list(json_stream.members(path, "d"))


def test_ids_of_unknown_words_and_long_texts():
    words = Vocabulary("words", ["a", "b"])
    assert words.features(["a b c a", ""], 3).tolist() == [[1, 2, 3], [0, 0, 0]]
    ids, chunks = words.sequences(["a b", ""], 2)
    assert ids.tolist() == [[4, 1, 2], [5, 0, 0], [4, 5, 0]] and chunks.tolist() == [2, 1]
