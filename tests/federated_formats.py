"""Writes rows in the formats of other simulators, as their own tools do."""

from __future__ import annotations

import json
import lzma
import sqlite3
import zlib
from pathlib import Path

import msgpack
import numpy as np


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])


def field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def tf_example(features: dict, packed: bool = True) -> bytes:
    """Returns a tf.train.Example, its numbers packed as TensorFlow does, or one by one."""
    entries = b""
    for name, value in features.items():
        if isinstance(value, (bytes, str)):
            text = value.encode() if isinstance(value, str) else value
            feature = field(1, field(1, text))
        elif np.asarray(value).dtype.kind == "f":
            numbers = [np.float32(number).tobytes() for number in np.ravel(value)]
            inside = (
                field(1, b"".join(numbers)) if packed else b"".join(b"\x0d" + n for n in numbers)
            )
            feature = field(2, inside)
        else:
            numbers = [varint(int(number)) for number in np.ravel(value)]
            inside = (
                field(1, b"".join(numbers)) if packed else b"".join(b"\x08" + n for n in numbers)
            )
            feature = field(3, inside)
        entries += field(1, field(1, name.encode()) + field(2, feature))
    return field(1, entries)


def write_tff(path: Path, splits: dict[str, dict[str, list[dict]]], packed: bool = True) -> Path:
    """Writes {split: {client: [features of an example]}}; packs it where the name ends in .lzma."""
    plain = path.with_suffix("") if path.suffix == ".lzma" else path
    with sqlite3.connect(plain) as database:
        database.execute("PRAGMA synchronous = OFF")
        database.execute("CREATE TABLE examples (split_name TEXT, client_id TEXT, "
                         "serialized_example_proto BLOB)")  # fmt: skip
        database.execute("CREATE TABLE client_metadata (client_id TEXT, split_name TEXT, "
                         "num_examples INTEGER)")  # fmt: skip
        database.execute("CREATE INDEX by_split ON examples (split_name, client_id)")
        for split, clients in splits.items():
            for client, examples in clients.items():
                rows = [(split, client, tf_example(example, packed)) for example in examples]
                database.executemany("INSERT INTO examples VALUES (?, ?, ?)", rows)
                database.execute(
                    "INSERT INTO client_metadata VALUES (?, ?, ?)", (client, split, len(rows))
                )
    database.close()
    if plain != path:
        path.write_bytes(lzma.compress(plain.read_bytes(), format=lzma.FORMAT_ALONE))
        plain.unlink()
    return path


def fedjax_bytes(features: dict[str, np.ndarray | list[bytes]]) -> bytes:
    packed = {}
    for name, values in features.items():
        if isinstance(values, list):
            packed[name] = msgpack.ExtType(4, msgpack.packb(((len(values),), values)))
        else:
            content = (values.shape, values.dtype.name, values.tobytes())
            packed[name] = msgpack.ExtType(1, msgpack.packb(content, use_bin_type=True))
    return zlib.compress(msgpack.packb(packed))


def write_fedjax(path: Path, clients: dict[str, dict]) -> Path:
    """Writes {client: {feature: array[rows, ...] or list of bytes}}."""
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA synchronous = OFF")
        database.execute("CREATE TABLE federated_data (client_id BLOB NOT NULL PRIMARY KEY, "
                         "data BLOB NOT NULL, num_examples INTEGER NOT NULL)")  # fmt: skip
        for client, features in clients.items():
            rows = len(next(iter(features.values())))
            database.execute(
                "INSERT INTO federated_data VALUES (?, ?, ?)",
                (client.encode(), fedjax_bytes(features), rows),
            )
    database.close()
    return path


def write_leaf(folder: Path, splits: dict[str, dict[str, dict]], groups: dict | None = None):
    """Writes {split: {user: {"x": [...], "y": [...]}}}, half of the users in one file each."""
    for split, clients in splits.items():
        (folder / split).mkdir(parents=True)
        users = list(clients)
        for part in range(2):
            some = users[part::2]
            content = {
                "users": some,
                "num_samples": [len(clients[user]["y"]) for user in some],
                "user_data": {user: clients[user] for user in some},
            }
            if groups is not None:
                content = {"hierarchies": [groups[user] for user in some], **content}
            path = folder / split / f"all_data_{part}_{split}.json"
            path.write_text(json.dumps(content))
    return folder
