"""LEAF, TensorFlow Federated, FedJAX: one population in all formats is one data set."""

import json
import sqlite3
import sys

import numpy as np
import pytest
from federated_formats import tf_example, write_fedjax, write_leaf, write_tff

from fljax import data
from fljax.data.readers import json_stream, tf_example as tf_example_reader

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
