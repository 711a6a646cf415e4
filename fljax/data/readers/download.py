"""Downloads data files: goes on where an attempt was cut off, and compares sizes and checksums."""

from __future__ import annotations

import hashlib
import os
import re
import time
import urllib.error
import urllib.request
from http.client import HTTPException, IncompleteRead
from pathlib import Path
from typing import NamedTuple

from fljax.core.data_files import resolve_data_dir
from fljax.core.files import naming
from fljax.core.names import nearest
from fljax.core.values import COUNT, Field, checked
from fljax.data.readers.progress import progress

_CHUNK_BYTES = 1 << 20
_SECONDS = 30.0  # without an answer
_TRIES, _PAUSE = 4, 1.0  # attempts, and seconds before the second one


class Location(NamedTuple):
    """The place of a file.

    Attributes:
      url: Its address.
      size: Bytes, or None where nobody has published them.
      sha256: Its checksum, or None.
    """

    url: str
    size: int | None = None
    sha256: str | None = None


_TFF = "https://storage.googleapis.com/tff-datasets-public/"
_FEDJAX = "https://storage.googleapis.com/gresearch/fedjax/"
# Sizes and checksums as TensorFlow Federated and FedJAX publish them in their sources.
LOCATIONS = {
    "emnist_all.sqlite.lzma": Location(f"{_TFF}emnist_all.sqlite.lzma"),
    "cifar100.sqlite.lzma": Location(
        f"{_TFF}cifar100.sqlite.lzma",
        153_019_920,
        "23d3916c9caa33395737ee560cc7cb77bbd05fc7b73647ee7be3a7e764172939",
    ),
    "shakespeare.sqlite.lzma": Location(f"{_TFF}shakespeare.sqlite.lzma"),
    "stackoverflow.sqlite.lzma": Location(f"{_TFF}stackoverflow.sqlite.lzma"),
    "stackoverflow.word_count.tar.bz2": Location(
        f"{_TFF}stackoverflow.word_count.tar.bz2",
        sha256="1dc00256d6e527c54b9756d968118378ae14e6692c0b3b6cad470cdd3f0c519c",
    ),
    "stackoverflow.tag_count.tar.bz2": Location(
        f"{_TFF}stackoverflow.tag_count.tar.bz2",
        sha256="6fe281cec490d9384a290d560072438e7e2b377bbb823876ce7bd6f82696772d",
    ),
    "celeba.sqlite.lzma": Location(f"{_TFF}celeba.sqlite.lzma"),
    **{
        f"{stem}_{split}.sqlite": Location(f"{_FEDJAX}{folder}/{stem}_{split}.sqlite")
        for folder, stem, splits in (
            ("emnist", "federated_emnist", ("train", "test")),
            ("emnist", "federated_emnist_digitsonly", ("train", "test")),
            ("shakespeare", "shakespeare", ("train", "test")),
            ("stackoverflow", "stackoverflow", ("train", "held_out", "test")),
        )
        for split in splits
    },
}


def download(
    what: str, *, size: int | None = None, sha256: str | None = None, data_dir=None
) -> Path:
    """Downloads a file into the data directory, if it is not there yet.

    Args:
      what: A name of `fljax.data.readers.download.LOCATIONS`, such as "cifar100.sqlite.lzma", or an
        address (http or https).
      size: Bytes that it must have; by default what is published, or what the server says.
      sha256: Its checksum in hexadecimal digits; by default what is published, if anything is.
      data_dir: See `resolve_data_dir`.

    Returns:
      The path of the file.

    Raises:
      ValueError: If the name is unknown, or what arrives is not what it must be; it is then
        removed.
      OSError: If the server cannot be reached, has no such file, or breaks off several times; what
        has arrived is kept, and the next call goes on behind it.

    Example:
      >>> path = data.download('cifar100.sqlite.lzma')  # doctest: +SKIP
    """
    location = _location(what)
    size = checked("size", size, Field(None, int, COUNT, optional=True)) or location.size
    sha256 = sha256 or location.sha256
    if sha256 is not None and not re.fullmatch("[0-9a-fA-F]{64}", str(sha256)):
        raise ValueError(f"sha256 = {sha256!r} is no checksum of 64 hexadecimal digits")
    root = resolve_data_dir(data_dir)
    name = location.url.partition("?")[0].rstrip("/").rpartition("/")[2]
    path = root / name
    if path.is_file():
        _check(path, path, size, sha256, "remove it, and it is downloaded again")
        return path
    with naming(root):
        root.mkdir(parents=True, exist_ok=True)
    part = root / f"{name}.part"
    for number in range(_TRIES):
        try:
            _fetch(location.url, part)
            break
        except (TimeoutError, ConnectionError, IncompleteRead) as error:
            if number == _TRIES - 1:
                raise OSError(
                    f"{location.url} broke off {_TRIES} times ({error or type(error).__name__}): "
                    f"{part} has what arrived, and the next attempt goes on behind it"
                ) from error
            time.sleep(_PAUSE * 2**number)
    try:
        _check(part, path, size, sha256, "the server has another file, or the download went wrong")
    except ValueError:
        part.unlink()
        raise
    os.replace(part, path)
    return path


def _location(what: str) -> Location:
    if isinstance(what, str) and re.match("https?://", what):
        return Location(what)
    if what not in LOCATIONS:
        near = nearest(str(what), LOCATIONS)
        raise ValueError(
            f"{what!r} is no address and no file that is known. "
            + (f"Did you mean {near!r}? " if near else "")
            + f"Known are {', '.join(LOCATIONS)}"
        )
    return LOCATIONS[what]


def _fetch(url: str, part: Path) -> None:
    """Appends what is missing to a file.

    Raises:
      IncompleteRead: If the connection ends early.
      OSError: If there is no connection, or no such file.
    """
    done = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={done}-"} if done else {})
    try:
        with urllib.request.urlopen(request, timeout=_SECONDS) as answer:
            if done and answer.status != 206:  # the server sends everything again
                done = 0
            rest = answer.headers.get("Content-Length")
            total = None if rest is None else done + int(rest)
            with (
                open(part, "ab" if done else "wb") as file,
                progress(part.stem, "B", total, done) as line,
            ):
                while data := answer.read(_CHUNK_BYTES):
                    file.write(data)
                    done += len(data)
                    line.update(len(data))
            if total is not None and done < total:
                raise IncompleteRead(b"", total - done)
    except urllib.error.HTTPError as error:
        if error.code == 416 and done:  # nothing is left to send
            whole = error.headers.get("Content-Range", "").rpartition("/")[2]
            if whole.isdigit() and int(whole) != done:
                part.unlink()
                raise ConnectionError("what had arrived is of another file") from None
            return
        raise OSError(f"{url}: the server says {error.code} {error.reason}") from None
    except urllib.error.URLError as error:
        if isinstance(error.reason, TimeoutError | ConnectionError):
            raise error.reason from None
        raise OSError(
            f"{url} cannot be reached ({error.reason}): is this machine online?"
        ) from None
    except IncompleteRead:
        raise
    except HTTPException as error:
        raise ConnectionError(str(error) or type(error).__name__) from error


def _check(file: Path, path: Path, size: int | None, sha256: str | None, remedy: str) -> None:
    """Raises ValueError unless a file has the size and the checksum that it must have."""
    found = file.stat().st_size
    if size is not None and found != size:
        raise ValueError(f"{path} has {found:,} bytes, not {size:,}: {remedy}")
    if sha256 is None:
        return
    digest = hashlib.sha256()
    with open(file, "rb") as content:
        while data := content.read(_CHUNK_BYTES):
            digest.update(data)
    if digest.hexdigest() != sha256.lower():
        raise ValueError(f"{path} has the SHA-256 {digest.hexdigest()}, not {sha256}: {remedy}")
