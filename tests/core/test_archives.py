"""Compressed files and archives that are broken, too large, or hold what is no file."""

import bz2
import gzip
import io
import json
import struct
import tarfile
import zipfile

import numpy as np
import pytest

from fljax.benchmarks import workload_file
from fljax.core import archives
from fljax.core.archives import read_bytes, read_members, read_npz
from fljax.core.data_files import read_idx, read_json
from fljax.data import cifar10, mnist, shakespeare

NAMES = ("data/one.bin", "data/two.bin")


def one_line(error, path):
    """Returns whether an error is a line with its file, and nothing of the inside of fljax."""
    return str(path) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_archive_is_read_as_numpy_reads_it(save, tmp_path):
    generator = np.random.default_rng(0)
    saved = {
        "x": generator.standard_normal((700, 600)).astype(np.float32),
        "columns_first": np.asfortranarray(generator.integers(0, 9, (5, 4))),
        "empty": np.zeros((0, 3), np.int32),
        "scalar": np.float64(3.5),
        "text": np.array("über"),
    }
    save(tmp_path / "some.npz", **saved)
    found = read_npz(tmp_path / "some.npz")
    assert found.keys() == saved.keys()
    for key, values in saved.items():
        np.testing.assert_array_equal(found[key], values)
    assert found["x"].ctypes.data % 64 == 0


def npy(values=None, header=None):
    file = io.BytesIO()
    if header is None:
        np.save(file, values)
    else:
        text = repr(header).encode() + b"\n"
        file.write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text)
    return file.getvalue()


def npz(path, compression=zipfile.ZIP_DEFLATED, **members):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name.replace("_npy", ".npy").replace("_dir", "/"), content)
    return path


def flipped(content, place):
    return content[:place] + bytes([content[place] ^ 0x40]) + content[place + 1 :]


ARRAY = npy(np.arange(5000, dtype=np.int32))
HUGE = {"descr": "<f8", "fortran_order": False, "shape": (1 << 40,)}


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"x_npy": b"not an array"}, "truncated or corrupt"),
        ({"x_npy": npy(header=HUGE)}, r"x.npy has 0 bytes for float64\[1099511627776\]"),
        ({"x_npy": npy(header=HUGE | {"shape": (-1,)})}, "is corrupt"),
        ({"x_npy": ARRAY[:-3]}, "is corrupt: x.npy has 19997 bytes"),
        ({"x_npy": npy(np.array([{}], object))}, "Python objects"),
        ({"x_dir": b""}, "holds 'x/', which is no array"),
        ({"notes": b"hello"}, "holds 'notes', which is no array"),
    ],
)
def test_members_that_are_no_arrays_are_refused(members, message, tmp_path):
    path = npz(tmp_path / "a.npz", **members)
    with pytest.raises(ValueError, match=message) as error:
        read_npz(path)
    assert one_line(error, path)


def test_broken_archives_are_refused(tmp_path):
    good = npz(tmp_path / "good.npz", zipfile.ZIP_STORED, x_npy=ARRAY).read_bytes()
    encrypted = bytearray(good)
    encrypted[6] |= 1  # the flag, where the member begins and in the directory
    encrypted[good.index(b"PK\x01\x02") + 8] |= 1
    unknown = bytearray(good)
    unknown[8], unknown[good.index(b"PK\x01\x02") + 10] = 99, 99
    path = tmp_path / "bad.npz"
    for content, message in (
        (b"", "not an .npz archive"),
        (good[:-30], "not an .npz archive"),
        (flipped(good, 9000), "truncated or corrupt .*CRC"),
        (bytes(encrypted), "is encrypted"),
        (bytes(unknown), "truncated or corrupt"),
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=message) as error:
            read_npz(path)
        assert one_line(error, path)


@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_archives_that_grow_are_refused(compression, tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "_MOST_BYTES", 1 << 20)
    zeros = np.zeros(1 << 20, np.int32)
    path = npz(tmp_path / "a.npz", compression, x_npy=npy(zeros))
    with pytest.raises(ValueError, match="unpacks to more than 1 MB") as error:
        read_npz(path)
    assert one_line(error, path)
    packed = tmp_path / "a.gz"
    packed.write_bytes(gzip.compress(zeros.tobytes()))
    for read in (read_bytes, read_json):
        with pytest.raises(ValueError, match="unpacks to more than 1 MB"):
            read(packed)
    header = bytes([0, 0, 0x0C, 1]) + struct.pack(">I", zeros.size)
    packed.write_bytes(gzip.compress(header + zeros.tobytes()))
    with pytest.raises(ValueError, match=r"int32\[1048576\], 4,194,304 bytes, but cannot"):
        read_idx(packed)
    packed.write_bytes(gzip.compress(header + bytes(100)))  # it claims what it does not have
    with pytest.raises(ValueError, match="int32"):
        read_idx(packed)
    # what is as large as it looks may be of any size
    stored = npz(tmp_path / "b.npz", zipfile.ZIP_STORED, x_npy=npy(zeros))
    assert read_npz(stored)["x"].size == zeros.size


def tar(path, special=(), contents=(b"a" * 5000, b"b" * 5000), compress=gzip.compress):
    """Writes an archive of two files, some of which are something else instead."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, content in zip(NAMES, contents, strict=True):
            member = tarfile.TarInfo(name)
            if name in special:
                member.type = special[name]
                member.linkname = "/etc/passwd"
                archive.addfile(member)
            else:
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    path.write_bytes(compress(file.getvalue()))
    return path


def test_members_of_an_archive_are_read_in_the_order_asked_for(tmp_path):
    path = tar(tmp_path / "a.tar.gz")
    assert read_members(path, NAMES[::-1]) == [b"b" * 5000, b"a" * 5000]


@pytest.mark.parametrize(
    ("kind", "called"),
    [
        (tarfile.DIRTYPE, "a folder"),
        (tarfile.SYMTYPE, "a link"),
        (tarfile.LNKTYPE, "a link"),
        (tarfile.FIFOTYPE, "a pipe"),
        (tarfile.CHRTYPE, "a special file"),
    ],
)
def test_members_that_are_no_files_are_refused(kind, called, tmp_path):
    path = tar(tmp_path / "a.tar.gz", {NAMES[1]: kind})
    with pytest.raises(ValueError, match=f"holds data/two.bin as {called}, not as a file") as error:
        read_members(path, NAMES)
    assert one_line(error, path)


def test_broken_tar_archives_are_refused(tmp_path):
    path = tar(tmp_path / "a.tar.gz")
    with pytest.raises(ValueError, match="holds no data/three.bin"):
        read_members(path, ["data/three.bin"])
    with pytest.raises(ValueError, match="unpacks to more than 0 MB"):
        read_members(path, NAMES, most=4000)
    good = path.read_bytes()
    inside = gzip.decompress(good)
    for content in (b"", good[:-20], flipped(good, len(good) // 2), gzip.compress(inside[:3000]),
                    gzip.compress(b"no archive" * 100), bz2.compress(inside)):  # fmt: skip
        path.write_bytes(content)
        with pytest.raises(ValueError, match="truncated or corrupt|holds no data") as error:
            read_members(path, NAMES)
        assert one_line(error, path)


def written(folder, name, content):
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)
    return folder / name


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe\x00{}", "is not JSON in UTF-8"),
        (b'{"train": "\xe9", "test": {}}', "is not JSON in UTF-8"),
        (b"[" * 100_000, "is not JSON"),
        (b'{"train": {"A": [], "A": []}}', "key 'A' twice"),
        (b'{"train": [1], "test": {}}', r'under "train", not \[1\]'),
        (b'{"train": {"A": "to be"}, "test": {}}', "a list of texts for 'A', not 'to be'"),
        (b'{"train": {"A": [3]}, "test": {}}', "texts for 'A', not 3"),
        (b'{"train": {"A": ["\\ud800"]}, "test": {}}', "not UTF-8"),
        (b'{"train": {"A": []}, "test": {"A": ["b"]}}', 'no text under "train"'),
        (b'{"train": {"A": ["b"]}, "test": {}}', 'no text under "test"'),
    ],
)
def test_texts_of_the_wrong_shape_are_refused(content, message, tmp_path):
    path = written(tmp_path, "shakespeare_tff/shakespeare_tff.json", content)
    with pytest.raises(ValueError, match=message) as error:
        shakespeare(data_dir=tmp_path)
    assert one_line(error, path)


def subset(**changes):
    x, y = np.zeros((20, 32, 32, 3), np.uint8), np.arange(20) % 10
    return {"x_train": x, "y_train": y, "x_test": x, "y_test": y} | changes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x_test": np.zeros((20, 3, 32, 32), np.uint8)}, r"x_test as uint8\[20, 3, 32, 32\]"),
        ({"x_train": np.zeros((20, 32, 32, 3))}, "x_train as float64"),
        ({"y_train": np.arange(19)}, r"y_train as int64\[19\]"),
        ({"y_train": np.arange(20)}, "labels that are not 0 to 9"),
        ({"y_test": np.zeros(20)}, "labels that are not 0 to 9"),
    ],
)
def test_a_subset_of_the_wrong_shape_is_refused(changes, message, tmp_path):
    path = written(tmp_path, "cifar10_subset/cifar10_subset.npz", b"")
    np.savez(path, **subset(**changes))
    with pytest.raises(ValueError, match=message) as error:
        cifar10(data_dir=tmp_path, num_clients=2)
    assert one_line(error, path)
    np.savez(path, **subset())
    assert cifar10(data_dir=tmp_path, num_clients=2).train.num_rows == 20


def idx(values, code=8):
    sizes = b"".join(struct.pack(">I", size) for size in values.shape)
    return bytes([0, 0, code, values.ndim]) + sizes + values.tobytes()


def test_image_files_of_the_wrong_kind_are_refused(tmp_path):
    images, labels = np.zeros((9, 28, 28), np.uint8), np.arange(9, dtype=np.uint8)
    parts = {"images-idx3-ubyte": idx(images), "labels-idx1-ubyte": idx(labels)}
    for prefix in ("train", "t10k"):
        for name, content in parts.items():
            written(tmp_path, f"mnist/{prefix}-{name}", content)
    assert mnist(data_dir=tmp_path, num_clients=2).train.num_rows == 9
    name = "mnist/train-labels-idx1-ubyte"
    path = written(tmp_path, name, idx(labels * 2))
    with pytest.raises(ValueError, match="labels that are not 0 to 9 .*0 to 16") as error:
        mnist(data_dir=tmp_path, num_clients=2)
    assert one_line(error, path)
    written(tmp_path, name, idx(labels))
    path = written(tmp_path, "mnist/t10k-images-idx3-ubyte", idx(images.astype(">f4"), 0x0D))
    with pytest.raises(ValueError, match="holds float32 pixels, not bytes") as error:
        mnist(data_dir=tmp_path, num_clients=2)
    assert one_line(error, path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"meta": "{"}, "are not JSON"),
        ({"meta": "[1]"}, "do not say 'name'"),
        ({"y": np.zeros(3, int)}, "y does not have one label"),
        ({"offsets": np.array([0, 9, 4])}, "offsets do not divide 4 rows"),
        ({"offsets": np.array([0.0, 4.0])}, "offsets do not divide"),
        ({"cohorts": np.array([[0, 7]])}, "cohorts are not lists of clients 0 to 1"),
        ({"eval_y": np.zeros((2, 2))}, "eval_y does not fit"),
    ],
)
def test_workload_files_that_do_not_fit_together_are_refused(changes, message, tmp_path):
    meta = dict.fromkeys(workload_file._FACTS, 1)
    arrays = {
        "x": np.zeros((4, 2)), "y": np.zeros(4, int), "offsets": np.array([0, 1, 4]),
        "cohorts": np.array([[0, 1]]), "eval_x": np.zeros((2, 2)), "eval_y": np.zeros(2, int),
        "meta": json.dumps(meta),
    }  # fmt: skip
    path = tmp_path / "w.npz"
    np.savez(path, **arrays)
    workload_file.read(path)
    np.savez(path, **arrays | changes)
    with pytest.raises(ValueError, match=message) as error:
        workload_file.read(path)
    assert one_line(error, path)
