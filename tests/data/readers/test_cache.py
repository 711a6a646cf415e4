"""The cache of readers: rows grouped in bounded memory, whole or not there, resumed, verified."""

from __future__ import annotations

import numpy as np
import pytest

from fljax import data
from fljax.data.readers import cache, grouping
from fljax.data.readers.blocks import Opened, Reading, skipping
from fljax.data.readers.cache import cached
from fljax.data.readers.population import population

NAMES = np.array(["zoë", "ann", "x", "bob", "", "eve"])


def rows(seed=0, count=1000):
    """Returns {column: [rows, ...]} of clients in any order."""
    draw = np.random.default_rng(seed)
    return {
        "client": draw.choice(NAMES, count),
        "x": draw.normal(size=(count, 3)).astype(np.float32),
        "y": draw.choice(np.array(["no", "yes", "maybe"]), count),
    }


def blocks_of(columns, size=64, **more):
    for start in range(0, len(columns["client"]), size):
        yield {name: values[start : start + size] for name, values in columns.items()} | more


@pytest.fixture
def reading(tmp_path):
    """Makes a reading of training and, where there are some, test rows, of one file."""
    source = tmp_path / "source"
    source.write_text("as it was")

    def make(train, test=None):
        def blocks():
            yield from blocks_of(train)
            if test is not None:
                yield from blocks_of(test, split="test")

        return Reading("mine", [source], {}, lambda: Opened(skipping(blocks), {"a": [1]}))

    return make


def assert_equal(one, other):
    """Asserts that two data sets are equal, client by client."""
    assert (one.kind, one.num_classes, one.class_names) == (
        other.kind, other.num_classes, other.class_names,
    )  # fmt: skip
    for name in ("client_ids", "held_out_ids"):
        ours, theirs = getattr(one, name), getattr(other, name)
        assert (ours is None) == (theirs is None)
        assert ours is None or ours.tolist() == theirs.tolist()
    for role in ("train", "val", "test", "held_out"):
        ours, theirs = getattr(one, role), getattr(other, role)
        assert (ours is None) == (theirs is None), role
        if ours is None:
            continue
        assert (ours.partition is None) == (theirs.partition is None), role
        if ours.partition is not None:
            assert ours.partition.sizes.tolist() == theirs.partition.sizes.tolist()
        left, right = (split.examples.take(split.rows()) for split in (ours, theirs))
        if ours.partition is None:  # nobody's rows, in any order
            left, right = ({k: np.sort(v, axis=0) for k, v in s.items()} for s in (left, right))
        for name in right:
            assert left[name].dtype == right[name].dtype
            np.testing.assert_array_equal(left[name], right[name])


@pytest.mark.parametrize("bucket", [1 << 20, 3000, 40])
def test_it_is_the_data_set_of_the_arrays_whatever_fits_into_memory(
    bucket, reading, tmp_path, monkeypatch
):
    monkeypatch.setattr(grouping, "BUCKET_BYTES", bucket)
    monkeypatch.setattr(grouping, "_CHUNK_BYTES", 900)
    train, test = rows(0), rows(1, 90)
    test["client"][:5] = "new"
    found = cached(reading(train, test), tmp_path / "cache")
    assert found.facts == {"a": [1]}
    expected = data.from_arrays(
        train["x"], train["y"], client_ids=train["client"],
        x_test=test["x"], y_test=test["y"], test_client_ids=test["client"],
    )  # fmt: skip
    assert_equal(population(found, name="mine"), expected)
    cache.verify(found.folder)
    files = {"header.json", "clients.npy"}
    files |= {f"{s}.{end}" for s in ("train", "test") for end in ("x.bin", "y.bin", "offsets.npy")}
    assert {path.name for path in found.folder.iterdir()} == files
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [found.folder.name]
