"""Keeps what a reader read in a folder of flat files, ordered by client and mapped into memory.

    header.json                 version, columns, rows, names, sizes and checksums, what was read
    clients.npy                 ids[N] of all clients, sorted
    train.offsets.npy           int64[N + 1]: client i has the rows offsets[i]:offsets[i + 1]
    train.x.bin, train.y.bin    [rows, ...] values, client after client
    test.*, val.*               the same of further splits

A cache takes its place by a rename when it is whole. Of two processes that want the same, one
builds it and the other waits. A build that was killed goes on behind the blocks that it had stored.
Whatever is not what its header says, or was read from files that have changed, is built again; the
old one stays until the new one is whole.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import warnings
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fljax.core.files import cache_dir as default_cache_dir
from fljax.core.files import naming
from fljax.core.values import checked_path
from fljax.data.dataset import offsets_of
from fljax.data.readers import grouping, spill
from fljax.data.readers.blocks import SPLITS, Opened, Reading, identity
from fljax.data.readers.progress import progress
from fljax.data.values import held_type

try:
    import fcntl
except ImportError:  # not a Unix: each process builds for itself
    fcntl = None

VERSION = 1
HEADER = "header.json"
# What takes less is read into memory as a whole.
_IN_MEMORY_BYTES = 64 << 20
_CHUNK_BYTES = 8 << 20


class Cache(NamedTuple):
    """Arrays of a reader, kept for the next time.

    Attributes:
      folder: Where it lies.
      facts: What the reader noted, see `Opened`.
      columns: {column: {"dtype", "shape" of a row, "names": texts by their number or None, "low",
        "high": of all rows}}.
      clients: ids[N], sorted.
      offsets: {split: int64[N + 1]}.
      arrays: {split: {column: array[rows, ...]}}, in memory where they are small.
    """

    folder: Path
    facts: Mapping[str, Any]
    columns: Mapping[str, Mapping[str, Any]]
    clients: np.ndarray
    offsets: Mapping[str, np.ndarray]
    arrays: Mapping[str, Mapping[str, np.ndarray]]


def cached(
    reading: Reading, cache_dir: str | os.PathLike | None = None, verify: bool = False
) -> Cache:
    """Returns what a reader reads: from its cache, which is built where it is not there.

    Args:
      reading: See `fljax.data.readers.blocks`.
      cache_dir: Holds caches; default `datasets` in $FLJAX_CACHE_DIR, else in ~/.cache/fljax.
      verify: Whether the checksums of all values are compared as well, which reads them.

    Raises:
      FileNotFoundError: If a file to be read is missing.
      ValueError: Where it cannot be read. What was cached before stays.

    Example:
      >>> dataset = population(cached(reading), name="mine")  # doctest: +SKIP
    """
    root = default_cache_dir() / "datasets"
    root = root if cache_dir is None else checked_path("cache_dir", cache_dir).expanduser()
    files = identity(reading.files)
    what = {
        "format": reading.format,
        # what blocks hold, as numbers go the way of JAX
        "options": {**reading.options, "floats": held_type(np.float64).name},
        "files": files,
    }
    what = json.loads(json.dumps(what))
    key = json.dumps([what["format"], what["options"], sorted(files)], sort_keys=True)
    folder = root / f"{reading.format}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"
    if isinstance(found := _found(folder, what, verify), Cache):
        return found
    with naming(f"{root} (cache_dir or FLJAX_CACHE_DIR names another folder)"):
        root.mkdir(parents=True, exist_ok=True)
    with _alone(folder.with_suffix(".lock")) as is_alone:
        # another process may have built it meanwhile
        if isinstance(found := _found(folder, what, verify), Cache):
            return found
        if found:
            warnings.warn(f"The cache is built again: {found}.", stacklevel=3)
        own = ".building" if is_alone else f".{os.getpid()}.building"
        building = folder.with_suffix(own)
        try:
            _build(reading, building, what)
        except ValueError:  # no further reading of the same files would go on here
            shutil.rmtree(building, ignore_errors=True)
            raise
        _replace(building, folder)
    return opened(folder)


def opened(folder: str | os.PathLike) -> Cache:
    """Returns the cache in a folder; compares sizes, and the checksum of the header.

    Raises:
      FileNotFoundError: If there is none.
      ValueError: If it is damaged, or of another version of the format.
    """
    folder = Path(folder)
    header = _header(folder)
    whole = sum(size for size, _ in header["files"].values())
    in_memory = whole <= _IN_MEMORY_BYTES
    for name, (size, _) in header["files"].items():
        if (folder / name).stat().st_size != size:
            raise ValueError(f"{folder / name} has not the {size:,} bytes that its header says")
    arrays = {
        split: {
            name: _array(folder / spill.file_of(split, name), column, in_memory)
            for name, column in header["columns"].items()
        }
        for split in header["splits"]
    }
    return Cache(
        folder,
        header["facts"],
        header["columns"],
        np.load(folder / "clients.npy"),
        {split: np.load(folder / f"{split}.offsets.npy") for split in header["splits"]},
        arrays,
    )


def verify(folder: str | os.PathLike) -> None:
    """Compares the checksums of all files of a cache.

    Raises:
      ValueError: If a file is not what was written; the message names it.
    """
    folder = Path(folder)
    for name, (_, expected) in _header(folder)["files"].items():
        found = 0
        with open(folder / name, "rb") as file:
            while data := file.read(_CHUNK_BYTES):
                found = zlib.crc32(data, found)
        if found != expected:
            raise ValueError(f"{folder / name} is damaged: it is not what was written")


def _found(folder: Path, what: Mapping[str, Any], is_verified: bool) -> Cache | str:
    """Returns the cache in a folder; where it has to be built, what is wrong with it, if anything.

    One that was read from files that have changed is right, and of no use.
    """
    try:
        if _header(folder)["read"] != what:
            return ""
        found = opened(folder)
        if is_verified:
            verify(folder)
        return found
    except FileNotFoundError as error:
        return f"{error.filename} is missing" if folder.is_dir() else ""
    except (OSError, ValueError, KeyError, TypeError) as error:
        return str(error)


def _header(folder: Path) -> dict[str, Any]:
    path = folder / HEADER
    try:
        header = json.loads(path.read_bytes())
        crc32, version = header.pop("crc32"), header["version"]
    except (ValueError, KeyError, AttributeError):
        raise ValueError(f"{path} is damaged") from None
    if crc32 != _checksum(header):
        raise ValueError(f"{path} is damaged")
    if version != VERSION:
        raise ValueError(f"{path} is of version {version} of the format, not {VERSION}")
    return header


def _checksum(header: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(header, sort_keys=True).encode())


def _array(path: Path, column: Mapping[str, Any], in_memory: bool) -> np.ndarray:
    dtype, shape = np.dtype(column["dtype"]), (-1, *column["shape"])
    if in_memory:
        return np.fromfile(path, dtype).reshape(shape)
    return np.memmap(path, dtype, "r").reshape(shape)


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[bool]:
    """Waits until no other process holds a lock; yields False where there are no locks."""
    with naming(path):
        descriptor = None
        while descriptor is None and fcntl is not None:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                is_there = os.path.samestat(os.fstat(descriptor), os.stat(path))
            except FileNotFoundError:
                is_there = False
            except OSError:  # this file system has none
                break
            if not is_there:  # its holder has removed it
                os.close(descriptor)
                descriptor = None
    try:
        yield descriptor is not None
    finally:
        if descriptor is not None:
            path.unlink(missing_ok=True)
            os.close(descriptor)


def _replace(building: Path, folder: Path) -> None:
    """Gives a whole cache its place; whoever has the old one mapped keeps it."""
    old = building.with_suffix(".old")
    shutil.rmtree(old, ignore_errors=True)
    with contextlib.suppress(FileNotFoundError):
        os.rename(folder, old)
    os.rename(building, folder)
    shutil.rmtree(old, ignore_errors=True)


def _build(reading: Reading, building: Path, what: Mapping[str, Any]) -> None:
    """Reads everything into a folder, or what is missing there."""
    spilled = spill.opened(building / "spill", what)
    made = reading.open()
    if not spilled.is_whole:
        _ingest(reading, made, spilled, what)
    for path in building.iterdir():
        if path.name != "spill":
            path.unlink()
    with progress(f"{reading.format}, by client", " columns") as line:
        header = _grouped(spilled, building, line)
    header |= {"version": VERSION, "read": what, "facts": dict(made.facts)}
    header = json.loads(json.dumps(header))
    with open(building / HEADER, "w") as file:
        json.dump({**header, "crc32": _checksum(header)}, file)
        file.flush()
        os.fsync(file.fileno())
    shutil.rmtree(building / "spill")


def _ingest(reading: Reading, made: Opened, spilled: spill.Spill, what) -> None:
    """Stores all blocks that are not stored yet."""
    done = sum(spilled.rows.values())
    try:
        with progress(reading.format, " rows", made.rows, done) as line:
            for block in made.blocks(spilled.blocks):
                spill.append(spilled, block, what)
                line.update(len(block["client"]))
        if not spilled.rows.get("train"):
            source = reading.files[0] if reading.files else reading.format
            raise ValueError(f"{source}: there are no training rows")
        spilled.is_whole = True
        spill.note_at_times(spilled, what)
    finally:  # a block may be stored in part: the journal does not know of it
        spill.close(spilled)


def _grouped(spilled: spill.Spill, building: Path, line: Any) -> dict[str, Any]:
    """Writes all columns in the order of clients; returns what the header says of them."""
    order = {name: _sorted_values(codes) for name, codes in spilled.codes.items()}
    ids, ranks = order.pop("client")
    np.save(building / "clients.npy", ids)
    splits = [split for split in SPLITS if spilled.rows.get(split)]
    columns: dict[str, dict[str, Any]] = {}
    files: dict[str, list[int]] = {}
    for split in splits:
        owners = spilled.folder / spill.file_of(split, "client")
        sizes = grouping.counts(owners, ranks)
        np.save(building / f"{split}.offsets.npy", offsets_of(sizes))
        for name, (kind, shape) in spilled.columns.items():
            if name == "client":
                continue
            names, renumbered = order.get(name, (None, None))
            dtype = np.dtype(kind if names is None else np.int32)
            file = spill.file_of(split, name)
            source = grouping.Column(spilled.folder / file, dtype, tuple(shape), renumbered)
            with naming(building / file):
                written = grouping.ordered(source, owners, ranks, sizes, building / file)
            line.update(1)
            files[file] = [written.size, written.crc32]
            column = columns.setdefault(
                name,
                {"dtype": dtype.name, "shape": shape, "low": written.low, "high": written.high}
                # subjects are many, and nobody asks for their names
                | {"names": None if names is None or name == "subject" else names.tolist()},
            )
            column["low"] = min(column["low"], written.low)
            column["high"] = max(column["high"], written.high)
    for file in ("clients.npy", *(f"{split}.offsets.npy" for split in splits)):
        content = (building / file).read_bytes()
        files[file] = [len(content), zlib.crc32(content)]
    return {"splits": splits, "columns": columns, "files": files}


def _sorted_values(codes: Mapping[Any, int]) -> tuple[np.ndarray, np.ndarray]:
    """Returns (values sorted, int32[values] the place of each number among them)."""
    values = np.array(list(codes))
    order = np.argsort(values, kind="stable")
    ranks = np.empty(len(order), np.int32)
    ranks[order] = np.arange(len(order), dtype=np.int32)
    return values[order], ranks
