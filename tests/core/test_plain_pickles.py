"""Pickles of plain values are read; what asks for anything else is refused, uncalled."""

from __future__ import annotations

import collections
import datetime
import gzip
import os
import pickle

import numpy as np
import pytest

from fljax.core.plain_pickles import read_plain

PLAIN = {
    1: {"computation": 12.5, "communication": np.float32(3.5), "model": "CPH1801"},
    "two": [1, (2, None, True), {3}, b"bytes"],
    "array": np.arange(6).reshape(2, 3),
    "texts": np.array(["a", "bc"]),
    "ordered": collections.OrderedDict(a=1),
    "counts": collections.defaultdict(int, b=2),
}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_plain_values_are_read(protocol, suffix, tmp_path):
    path = tmp_path / f"values{suffix}"
    content = pickle.dumps(PLAIN, protocol)
    path.write_bytes(gzip.compress(content) if suffix else content)
    found = read_plain(path)
    assert repr(found) == repr(PLAIN)
    assert found[1]["communication"].dtype == np.float32


def test_files_of_python_2_and_of_older_numpy_are_read(tmp_path):
    path = tmp_path / "old"
    path.write_bytes(pickle.dumps({"a": np.float64(2)}, 2).replace(b"numpy._core", b"numpy.core"))
    assert read_plain(path) == {"a": 2.0}
    path.write_bytes(b"(dp0\nS'id'\np1\nI5\ns.")
    assert read_plain(path) == {"id": 5}


class Calls:
    def __reduce__(self):
        return os.mkdir, ("called",)


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (Calls(), f"{os.mkdir.__module__}.mkdir"),
        (datetime.date(2020, 1, 1), "datetime.date"),
        ([eval], "builtins.eval"),
        (np.array([Calls()], object), "object"),
    ],
)
def test_what_asks_for_more_is_refused_by_name(value, named, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "values"
    path.write_bytes(pickle.dumps(value))
    with pytest.raises(ValueError, match="only containers") as caught:
        read_plain(path)
    assert named in str(caught.value) and str(path) in str(caught.value)
    assert not (tmp_path / "called").exists()


@pytest.mark.parametrize("content", [b"", b"{}", b"\x80", pickle.dumps(PLAIN)[:-9], b"I1\nI2\nR."])
def test_broken_files_are_refused_by_name(content, tmp_path):
    path = tmp_path / "values"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="values"):
        read_plain(path)
