"""Reads pickle files that hold plain values: containers, texts, numbers, arrays of numbers.

A pickle may name any function, and whoever loads it calls that. So names are looked up in a list,
and a file that asks for another one is refused before anything is called.
"""

from __future__ import annotations

import collections
import io
import pathlib
import pickle
from typing import Any

import numpy as np

from fljax.core.archives import read_bytes, refused

_KINDS = "biufcSU"


class _Refused(pickle.UnpicklingError):
    """Says what a file holds that is no plain value."""


def _dtype(code: Any, *others: Any) -> np.dtype:
    """Returns a type of numbers or texts; objects would be anything."""
    dtype = np.dtype(code, *others)
    if dtype.kind not in _KINDS or dtype.names is not None:
        raise _Refused(f"holds an array of {dtype}")
    return dtype


def _encode(text: str, encoding: str) -> bytes:
    """Returns bytes as Python 3 writes them for Python 2."""
    return text.encode(encoding)


def _allowed() -> dict[tuple[str, str], Any]:
    """Returns {(module, name): what stands for it}."""
    allowed: dict[tuple[str, str], Any] = {
        ("collections", "OrderedDict"): collections.OrderedDict,
        ("collections", "defaultdict"): collections.defaultdict,
        ("_codecs", "encode"): _encode,
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): _dtype,
    }
    for kind in (dict, list, set, frozenset, int, float):
        # files of Python 2 name the module as it did
        allowed["builtins", kind.__name__] = allowed["__builtin__", kind.__name__] = kind
    allowed["__builtin__", "long"] = int
    # How NumPy itself pickles arrays and numbers; versions name their modules differently.
    for package in ("numpy.core", "numpy._core"):
        allowed[f"{package}.multiarray", "_reconstruct"] = np.zeros(1).__reduce__()[0]
        allowed[f"{package}.multiarray", "scalar"] = np.float64(0).__reduce__()[0]
        allowed[f"{package}.numeric", "_frombuffer"] = np.zeros(1).__reduce_ex__(5)[0]
    return allowed


_ALLOWED = _allowed()


class _Plain(pickle.Unpickler):
    """Looks names up in the list."""

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise _Refused(f"asks for {module}.{name}") from None


def read_plain(path: pathlib.Path, most: int | None = None) -> Any:
    """Returns the value in a pickle file, unpacked if its name ends in .gz.

    Args:
      path: Of the file; written by Python 2 or 3.
      most: The most bytes; None is `fljax.core.archives.most_bytes`.

    Raises:
      ValueError: If the file is truncated, corrupt or no pickle, or asks for anything but plain
        values.
    """
    content = read_bytes(path, most)
    try:
        return _Plain(io.BytesIO(content), encoding="latin1").load()
    except _Refused as error:
        raise refused(
            path,
            f"{error}: only containers, texts, numbers and arrays of numbers are read from a "
            "pickle, since loading it would call whatever it asks for",
        ) from error
    except Exception as error:  # what a broken file makes of the values it names
        raise refused(
            path, f"is no pickle of plain values ({type(error).__name__}: {error})"
        ) from error
