"""The cache of readers: rows grouped in bounded memory, whole or not there, resumed, verified."""

from __future__ import annotations

import concurrent.futures
import resource
import threading
import time
import warnings

import numpy as np
import pytest
from readers import assert_equal

from fljax import data
from fljax.data.readers import cache, grouping, spill
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


def stopping(reading, after):
    """Returns the reading, killed before it yields so many blocks; counts those it yields."""
    yielded = []

    def open_it():
        made = reading.open()

        def blocks(start):
            for number, block in enumerate(made.blocks(start), start):
                if number == after:
                    raise KeyboardInterrupt
                yielded.append(number)
                yield block

        return made._replace(blocks=blocks)

    return reading._replace(open=open_it), yielded


def test_a_killed_reading_goes_on_behind_what_is_stored(reading, tmp_path, monkeypatch):
    monkeypatch.setattr(spill, "_SECONDS", 0.0)
    train = rows()
    whole = reading(train)
    for after, others in ((3, [0, 1, 2]), (9, [3, 4, 5, 6, 7, 8])):
        killed, yielded = stopping(whole, after)
        with pytest.raises(KeyboardInterrupt):
            cached(killed, tmp_path)
        assert yielded == others
        (folder,) = tmp_path.glob("*.building")
        with open(folder / "spill" / "train.x.bin", "ab") as file:
            file.write(b"what a kill left behind the last entry of the journal")
        with open(folder / "spill" / "client.values", "ab") as file:
            file.write(b'"half of an i')
    last, yielded = stopping(whole, -1)
    found = cached(last, tmp_path)
    assert yielded == [*range(9, 16)]
    expected = data.from_arrays(train["x"], train["y"], client_ids=train["client"])
    assert_equal(population(found, name="mine"), expected)


def test_a_full_disk_is_named_and_the_reading_goes_on_when_there_is_room(
    reading, tmp_path, monkeypatch
):
    monkeypatch.setattr(spill, "_SECONDS", 0.0)
    train = rows()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, hard))  # 333 rows of x
    try:
        with pytest.raises(OSError, match=r"train\.x\.bin"):
            cached(reading(train), tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    last, yielded = stopping(reading(train), -1)
    found = cached(last, tmp_path)
    assert yielded[0] in range(1, 6)
    expected = data.from_arrays(train["x"], train["y"], client_ids=train["client"])
    assert_equal(population(found, name="mine"), expected)


def test_a_killed_reading_of_other_rows_is_thrown_away(reading, tmp_path, monkeypatch):
    monkeypatch.setattr(spill, "_SECONDS", 0.0)
    whole = reading(rows())
    killed, _ = stopping(whole, 3)
    with pytest.raises(KeyboardInterrupt):
        cached(killed, tmp_path)
    whole.files[0].write_text("changed")
    last, yielded = stopping(whole, -1)
    cached(last, tmp_path)
    assert yielded == [*range(16)]


def test_a_cache_is_found_again_until_its_file_changes(reading, tmp_path):
    whole = reading(rows())
    first = cached(whole, tmp_path)
    never = whole._replace(open=None)
    assert cached(never, tmp_path).folder == first.folder
    whole.files[0].write_text("as it is now")
    broken = whole._replace(open=lambda: Opened(skipping(lambda: iter([{"client": [1.5]}]))))
    with pytest.raises(ValueError, match="client must hold integers or texts, not float64"):
        cached(broken, tmp_path)
    assert cache.opened(first.folder).arrays["train"]["x"].shape == (1000, 3)  # as before
    assert [path.name for path in tmp_path.glob(f"{first.folder.name}*")] == [first.folder.name]
    assert len(cached(reading(rows(count=70)), tmp_path).arrays["train"]["x"]) == 70


@pytest.mark.parametrize(
    "name, change, said",
    [
        ("train.x.bin", lambda old: old[:-1], "has not the 12,000 bytes"),
        ("train.x.bin", lambda old: old[:99] + b"?" + old[100:], "is not what was written"),
        ("header.json", lambda old: old.replace(b'"train"', b'"trair"'), "header.json is damaged"),
        ("header.json", lambda old: old[:40], "header.json is damaged"),
        ("clients.npy", lambda old: b"", "has not the"),
    ],
)
def test_a_damaged_cache_is_named_and_built_again(name, change, said, reading, tmp_path):
    train = rows()
    path = cached(reading(train), tmp_path).folder / name
    path.write_bytes(change(path.read_bytes()))
    with pytest.warns(UserWarning, match=said):
        found = cached(reading(train), tmp_path, verify=True)
    expected = data.from_arrays(train["x"], train["y"], client_ids=train["client"])
    assert_equal(population(found, name="mine"), expected)


def test_a_cache_of_another_version_is_built_again(reading, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(cache, "VERSION", 0)
        cached(reading(rows()), tmp_path)
    with pytest.warns(UserWarning, match="is of version 0 of the format, not 1"):
        cached(reading(rows()), tmp_path)
    with warnings.catch_warnings(action="error"):
        cached(reading(rows()), tmp_path)


def test_of_two_that_want_the_same_one_builds_it(reading, tmp_path):
    whole, count, together = reading(rows()), [], threading.Barrier(2)

    def slow():
        count.append(1)
        time.sleep(0.1)
        return whole.open()

    def want(_):
        together.wait()
        return cached(whole._replace(open=slow), tmp_path).folder

    with concurrent.futures.ThreadPoolExecutor(2) as threads:  # a lock is of an open file
        assert len({*threads.map(want, range(2))}) == 1
    assert len(count) == 1
    assert len([*tmp_path.glob("mine*")]) == 1


@pytest.mark.parametrize(
    "blocks, said",
    [
        ([{"x": [1.0]}], "a block needs a client and values for each row"),
        ([{"client": [1], "x": [1.0, 2.0]}], "a block needs a client and values for each row"),
        ([{"client": [1], "x": [np.nan]}], r"x, row 0 is nan: drop or fill it"),
        ([{"client": [1], "x": [1e39]}], "x, row 0 is 1e.39, beyond float32"),
        ([{"client": [1], "x": [1.0]}, {"client": [1], "x": [1]}], "x is .*int32.* here"),
        ([{"client": [1], "x": [1.0]}, {"client": ["1"], "x": [1.0]}], "client is .*text.* here"),
        ([{"client": [1], "x": [1.0]}, {"client": [1], "y": [1.0]}], "a block has the columns"),
        ([{"client": [1], "x": [1.0], "split": "dev"}], "the split 'dev', which is none of"),
        ([{"client": [1], "x": [1.0], "split": "test"}], "there are no training rows"),
    ],
)
def test_what_is_no_block_is_refused_and_leaves_nothing(blocks, said, reading, tmp_path):
    bad = reading(rows())._replace(open=lambda: Opened(skipping(lambda: iter(blocks))))
    with pytest.raises(ValueError, match=said):
        cached(bad, tmp_path / "cache")
    assert not [*(tmp_path / "cache").iterdir()]


@pytest.mark.parametrize("in_memory", [0, 1 << 20])
@pytest.mark.parametrize(
    "options",
    [
        {"num_clients": 3, "seed": 2},
        {"val_fraction": 0.2},
        {"rows_per_client": 5},
        {"min_partition_size": 2},
        {"held_out_fraction": 0.3},
        {"partition": "dirichlet", "alpha": 0.5, "num_clients": 4},
        {"own_test_fraction": 0.25},
    ],
)
def test_what_is_asked_of_clients_is_that_of_rows_in_their_order(
    options, in_memory, reading, tmp_path, monkeypatch
):
    monkeypatch.setattr(cache, "_IN_MEMORY_BYTES", in_memory)
    train, test = rows(0), rows(1, 90)
    found = cached(
        reading(train) if "held_out_fraction" in options else reading(train, test), tmp_path
    )
    assert isinstance(found.arrays["train"]["x"], np.memmap) == (in_memory == 0)
    train, test = (
        {name: values[np.argsort(split["client"], kind="stable")] for name, values in split.items()}
        for split in (train, test)
    )
    tests = {"x_test": test["x"], "y_test": test["y"], "test_client_ids": test["client"]}
    tests = {} if "held_out_fraction" in options else tests
    expected = data.from_arrays(
        train["x"], train["y"], client_ids=train["client"], **tests, **options
    )
    if in_memory == 0 and "own_test_fraction" in options:
        with pytest.raises(ValueError, match="would copy a memmap"):
            population(found, name="mine", **options)
        return
    assert_equal(population(found, name="mine", **options), expected)
