"""Broken files are refused in one line that names them, and what was cached stays."""

import json
import lzma
import sqlite3
import zlib

import msgpack
import numpy as np
import pytest
from federated_formats import fedjax_bytes, tf_example, write_fedjax, write_leaf, write_tff

from fljax import data

ROWS = {"ann": [([0.5, 1.0], 0), ([1.5, 2.0], 1)], "bob": [([2.5, 3.0], 1)]}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FLJAX_CACHE_DIR", str(tmp_path / "cache"))


def tff(path):
    clients = {c: [{"x": x, "label": y} for x, y in rows] for c, rows in ROWS.items()}
    return write_tff(path, {"train": clients})


def fedjax(path):
    clients = {
        c: {"x": np.array([x for x, _ in rows]), "label": np.array([y for _, y in rows])}
        for c, rows in ROWS.items()
    }
    return write_fedjax(path, clients)


def leaf(folder):
    users = {c: {"x": [x for x, _ in rows], "y": [y for _, y in rows]} for c, rows in ROWS.items()}
    write_leaf(folder, {"train": users})
    return folder / "train"


def refuses(name, path, *said, **options):
    with pytest.raises((ValueError, FileNotFoundError)) as refused:
        data.load(name, path=str(path), **options)
    message = str(refused.value)
    assert "\n" not in message and all(word in message for word in said), message


@pytest.mark.parametrize("name", ["tff", "fedjax"])
def test_databases(name, tmp_path):
    path = {"tff": tff, "fedjax": fedjax}[name](tmp_path / "a.sqlite")
    content = path.read_bytes()
    before = repr(data.load(name, path=str(path)))
    cached = {p: p.read_bytes() for p in (tmp_path / "cache").rglob("*.bin")}
    for broken in (content[:5000], content[:100], b"<html>not found</html>", b""):
        path.write_bytes(broken)
        refuses(name, path, "a.sqlite")
    assert {p: p.read_bytes() for p in cached} == cached
    path.write_bytes(content)
    assert repr(data.load(name, path=str(path))) == before
    refuses(name, path, "'y'", "there is no feature", "label", target="y")
    refuses(name, path, "sizes of one example", shape="wide")
    refuses(name, path, "no [3]", shape=[3])
    refuses(name, path, "0.5", "no uint8", dtype="uint8")
    refuses(name, path, "text = 'words'", "holds no texts", text="words")
    refuses(name, path, "are for texts", vocabulary_size=9)
    refuses(name, tmp_path / "b.sqlite", "b.sqlite", "is not there")


def test_packed_databases(tmp_path):
    path = tff(tmp_path / "a.sqlite.lzma")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    refuses("tff", path, "a.sqlite.lzma", "truncated or corrupt")
    path.write_bytes(lzma.compress(b"no database" * 99))
    refuses("tff", path, "a.sqlite.lzma", "not a database")


def changed(path, *statements):
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA synchronous = OFF")
        for statement, arguments in statements:
            database.execute(statement, arguments)
    database.close()
    return path


def test_databases_whose_rows_are_wrong(tmp_path):
    set_example = "UPDATE examples SET serialized_example_proto = ? WHERE rowid = 2"
    for number, (example, said) in enumerate(
        [
            (b"\x0a\xff", "example 1 is corrupt (ends inside a number)"),
            (tf_example({"x": [1.0], "label": 0}), "'x' is not there in all examples"),
            (tf_example({"x": [1.0, 2.0]}), "'label' is not there in all examples"),
            (7, "example 1 is corrupt"),
            (b"", "'label' is not there in all examples"),
        ]
    ):
        path = changed(tff(tmp_path / f"{number}.sqlite"), (set_example, [example]))
        refuses("tff", path, said)
    path = changed(tff(tmp_path / "fewer.sqlite"), ("DELETE FROM examples WHERE rowid = 3", []))
    refuses("tff", path, "has 2 examples of 'train'", "there are 3")
    path = tff(tmp_path / "split.sqlite")
    refuses("tff", path, "no split 'fit'", splits={"train": "fit"})
    refuses("tff", path, "splits", "a dict such as", splits="train")
    refuses("fedjax", path, "no table 'federated_data'")

    set_data = "UPDATE federated_data SET data = ? WHERE client_id = ?"
    for number, (packed, said) in enumerate(
        [
            (fedjax_bytes({"x": np.ones((3, 2)), "label": np.ones(3, int)}), "has 2 examples, but"),
            (fedjax_bytes({"x": np.ones((2, 2)), "label": np.ones(2, int)})[:-9], "truncated"),
            (b"nothing", "truncated or corrupt"),
            (zlib.compress(msgpack.packb({"x": 3})), "holds no rows as 'x' of client 'ann', but 3"),
            (zlib.compress(msgpack.packb([1])), "holds no features of client 'ann'"),
        ]
    ):
        path = changed(fedjax(tmp_path / f"f{number}.sqlite"), (set_data, [packed, b"ann"]))
        refuses("fedjax", path, said)


def test_leaf(tmp_path):
    folder = leaf(tmp_path / "leaf")
    path = folder / "all_data_0_train.json"
    content = json.loads(path.read_text())

    def with_user(**values):
        path.write_text(json.dumps({**content, **values}))

    with_user(user_data={"ann": {"x": [[1.0, 2.0], [3.0]], "y": [0, 1]}})
    refuses("leaf", folder, "user 'ann'", "x must hold numbers of one shape")
    with_user(user_data={"ann": {"x": [[1.0, 2.0]], "y": [0, 1]}})
    refuses("leaf", folder, "user 'ann'", "lists of equal length")
    with_user(user_data={"ann": {"x": [[1.0, 2.0]], "y": [0]}})
    refuses("leaf", folder, "'ann' has 2 examples, but has 1")
    with_user(user_data={"ann": {"x": [[1.0, 2.0]] * 2, "y": [0, 0.5]}})
    refuses("leaf", folder, "one class a row", "not 0.5", "target")
    with_user(user_data={"ann": {"x": [[1.0, 2.0]] * 2, "y": ["a", 1]}})
    refuses("leaf", folder, "the label 'y' holds 1, and others are texts")
    with_user(user_data={"ann": {"x": ["to", "be"], "y": [0, 1]}})
    refuses("leaf", folder, "'x' holds texts: say how to read them")
    refuses("leaf", folder, "leave shape and dtype out", text="words", shape=[3])
    with_user(user_data={})
    refuses("leaf", folder, "names the user 'ann', but has no data")
    with_user(user_data={"ann": {"x": [[1.0, 2.0, 3.0]] * 2, "y": [0, 1]}})
    refuses("leaf", folder, "user 'bob'", "float32[2]", "float32[3]", "of one type")
    path.write_text(json.dumps(content)[:-30])
    refuses("leaf", folder, "all_data_0_train.json", "ends early")
    refuses("leaf", tmp_path / "cache", "has no JSON files")


def test_images(tmp_path):
    from PIL import Image

    rng = np.random.default_rng(0)
    pixels = {}
    for split, client, kind in [("train", "a", "cat"), ("train", "b", "dog"), ("test", "a", "dog")]:
        folder = tmp_path / "photos" / split / client / kind
        folder.mkdir(parents=True)
        pixels[split, client] = rng.integers(0, 256, (5, 4, 3), np.uint8)
        Image.fromarray(pixels[split, client]).save(folder / "1.png")
    dataset = data.load("image_folder", path=str(tmp_path / "photos"))
    assert dataset.class_names == ("cat", "dog") and dataset.client_ids.tolist() == ["a", "b"]
    rows = dataset.train.examples.take([0, 1])
    assert np.array_equal(rows["x"], np.stack([pixels["train", "a"], pixels["train", "b"]]))
    assert rows["y"].tolist() == [0, 1] and rows["x"].dtype == np.uint8
    assert dataset.test.num_rows == 1 and dataset.preprocess is not None
    one_split = data.load("image_folder", path=str(tmp_path / "photos/test/a"), size=[2, 3],
                          channels=1, num_clients=1)  # fmt: skip
    assert one_split.train.examples.take([0])["x"].shape == (1, 2, 3, 1)
    odd = tmp_path / "photos/train/b/dog/2.png"
    Image.fromarray(pixels["train", "a"][:3]).save(odd)
    refuses("image_folder", tmp_path / "photos", "2.png is 3 x 4", "make them alike")
    odd.write_bytes(odd.read_bytes()[:60])
    refuses("image_folder", tmp_path / "photos", "2.png is no image, or broken")
    refuses("image_folder", tmp_path / "photos/train/a/cat", "class/*.png")


@pytest.mark.parametrize(
    "value, said",
    [
        (float("nan"), "is nan: drop or fill it"),
        (None, "is nan"),
        (1e39, "is 1e+39, beyond float32"),
    ],
)
def test_numbers_that_nobody_holds_are_named_by_file_user_and_row(value, said, tmp_path):
    users = {"ann": {"x": [[0.5, 1.0]] * 3, "y": [0, 1, 0]}}
    users["bob"] = {"x": [[0.5, 1.0], [0.5, value]], "y": [0, 1]}
    write_leaf(tmp_path / "leaf", {"train": users})
    refuses("leaf", tmp_path / "leaf" / "train", ".json, user 'bob': x, row 1, column 1", said)
    if value is not None:
        x = {c: {"x": np.array(v["x"]), "label": np.array(v["y"])} for c, v in users.items()}
        write_fedjax(tmp_path / "a.sqlite", x)
        refuses("fedjax", tmp_path / "a.sqlite", "a.sqlite, client 'bob': x, row 1, column 1", said)
