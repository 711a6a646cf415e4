"""Safetensors files: the bytes that the format's description gives, and what is refused."""

import json
import struct

import ml_dtypes
import numpy as np
import pytest

from fljax.core.safetensors import read_tensors, write_tensors

ARRAYS = {
    "weights": np.arange(6, dtype=np.float32).reshape(2, 3),
    "scale": np.array(1.5, ml_dtypes.bfloat16),
    "nothing": np.zeros((0, 3)),
    "ids": np.arange(3),
    "flags": np.array([True, False]),
}


def packed(header, data=b""):
    """Returns a file's bytes, by the format's description."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(shape=(2,), offsets=(0, 8), dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def test_what_is_written_is_read_and_lies_where_the_format_says(tmp_path):
    path = tmp_path / "new" / "weights.safetensors"
    write_tensors(path, ARRAYS, {"made by": "a test"})
    arrays, metadata = read_tensors(path)
    assert metadata == {"made by": "a test"} and arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(arrays[name], array, strict=True)
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header, data = json.loads(content[8 : 8 + length]), content[8 + length :]
    assert length % 8 == 0 and header["scale"]["dtype"] == "BF16"
    for name, array in ARRAYS.items():
        begin, end = header[name]["data_offsets"]
        assert data[begin:end] == array.tobytes() and header[name]["shape"] == list(array.shape)


def test_files_of_others_are_read(tmp_path):
    (tmp_path / "x").write_bytes(
        packed(
            {"b": entry(offsets=(8, 16)), "a": entry((2, 1), (0, 8))}, struct.pack("<4f", *range(4))
        )
    )
    arrays, _ = read_tensors(tmp_path / "x")
    assert arrays["a"].tolist() == [[0], [1]] and arrays["b"].tolist() == [2, 3]


@pytest.mark.parametrize(
    "content, problem",
    [
        (b"", "has 0 bytes, .* cut short"),
        (b"PK\3\4 of another kind", "cut short, or is no safetensors file"),
        (
            packed({"a": entry()}, b"1234567"),
            "7 bytes of arrays where .* says 8: it was cut",
        ),
        (packed({"a": entry()}, b"123456789"), "bytes follow that nobody describes"),
        (packed(b"{'a': 1}"), "a header that is no JSON"),
        (packed(b'{"a": 1, "a": 2}'), "a name stands there twice"),
        (packed(b"[]"), r"the header \[\], which is no object"),
        (packed({"a": entry(dtype="F33")}, b"12345678"), "holds a as F33; types are F64"),
        (
            packed({"a": entry((3,))}, b"12345678"),
            r"8 bytes for a, .* shape \[3\] takes 12",
        ),
        (packed({"a": entry((-2,))}, b"12345678"), "which is no dtype, shape and offsets"),
        (packed({"a": entry(offsets=(0,))}, b"12345678"), "which is no dtype, shape and offsets"),
        (packed({"a": 3}), "which is no dtype, shape and offsets"),
        (packed({"a": entry(offsets=(1, 9))}, b"123456789"), "that leave bytes between them"),
        (
            packed({"a": entry(), "b": entry(offsets=(4, 12))}, b"123456789012"),
            "offsets of a and b that overlap",
        ),
        (packed({"__metadata__": 3}), "__metadata__ = 3"),
    ],
)
def test_damage_is_told_in_one_line_that_names_the_file(tmp_path, content, problem):
    path = tmp_path / "broken.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=problem) as refusal:
        read_tensors(path)
    assert str(path) in str(refusal.value) and "\n" not in str(refusal.value)


def test_what_such_files_do_not_hold_is_refused(tmp_path):
    with pytest.raises(ValueError, match="a is complex128"):
        write_tensors(tmp_path / "x", {"a": np.zeros(2, complex)})
    with pytest.raises(ValueError, match="'__metadata__'; give it a text of its own"):
        write_tensors(tmp_path / "x", {"__metadata__": np.zeros(2)})
    with pytest.raises(ValueError, match="is a folder, and holds none; name a safetensors file"):
        read_tensors(tmp_path)
    write_tensors(tmp_path / "model.safetensors", {"x": np.zeros(2)})
    with pytest.raises(ValueError, match="is a folder, which holds model.safetensors; name"):
        read_tensors(tmp_path)
    with pytest.raises(FileNotFoundError, match="no file"):
        read_tensors(tmp_path / "x")
