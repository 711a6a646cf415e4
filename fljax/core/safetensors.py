"""Reads and writes safetensors files, the format of published weights, without the library.

    8 bytes    length of the header, little-endian
    header     JSON: {name: {"dtype", "shape", "data_offsets": [begin, end]}, "__metadata__": texts}
    the rest   the arrays, one behind the other, in C order and little-endian

https://huggingface.co/docs/safetensors describes it. What is read is checked: a file that was cut
short, or whose header does not fit its bytes, is refused.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from fljax.core.archives import refused
from fljax.core.files import atomic_file
from fljax.core.values import checked_path, shown

_DTYPES = {
    "F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": jnp.bfloat16,
    "I64": np.int64, "I32": np.int32, "I16": np.int16, "I8": np.int8,
    "U64": np.uint64, "U32": np.uint32, "U16": np.uint16, "U8": np.uint8, "BOOL": np.bool_,
    "F8_E4M3": jnp.float8_e4m3fn, "F8_E5M2": jnp.float8_e5m2,
}  # fmt: skip
_NAMES = {np.dtype(dtype): name for name, dtype in _DTYPES.items()}
_METADATA = "__metadata__"
# The format's own limit of a header; arrays begin at a multiple of 8 bytes
_MOST_HEADER, _ALIGNMENT = 100_000_000, 8


def write_tensors(
    path: str | Path, arrays: Mapping[str, Any], metadata: Mapping[str, str] | None = None
) -> None:
    """Writes arrays to a file, atomically.

    Args:
      path: The file; its directory is created if absent.
      arrays: {name: array}, of NumPy or JAX, of bfloat16 as well.
      metadata: Texts that go with them.

    Raises:
      ValueError: For types that the format does not know, and names that it keeps for itself.

    Example:
      >>> write_tensors("weights.safetensors", {"w": np.ones((2, 3))}, {"made by": "me"})
      >>> read_tensors("weights.safetensors")[0]["w"].shape
      (2, 3)
    """
    path = checked_path("path", path)
    held = {name: np.asarray(array) for name, array in arrays.items()}
    header: dict[str, Any] = {_METADATA: dict(metadata)} if metadata else {}
    end = 0
    for name, array in held.items():
        if not isinstance(name, str) or name == _METADATA:
            raise ValueError(f"an array is called {shown(name)}; give it a text of its own.")
        if array.dtype not in _NAMES:
            raise ValueError(f"{name} is {array.dtype}, which safetensors files do not hold.")
        begin, end = end, end + array.nbytes
        header[name] = {
            "dtype": _NAMES[array.dtype],
            "shape": list(array.shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for array in held.values():
            file.write(np.ascontiguousarray(array).tobytes())


def read_tensors(path: str | Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Reads a file's arrays, which stay on disk until they are used.

    Returns:
      ({name: array}, memory-mapped and read-only; the texts that go with them).

    Raises:
      FileNotFoundError: If there is no such file.
      ValueError: If it is a folder, cut short or no safetensors file; the message names it.
    """
    path = checked_path("path", path)
    if not path.exists():
        raise FileNotFoundError(f"There is no file {path}.")
    if path.is_dir():
        files = sorted(each.name for each in path.glob("*.safetensors"))
        holds = f"which holds {', '.join(files[:4])}" if files else "and holds none"
        raise ValueError(f"{path} is a folder, {holds}; name a safetensors file.")
    size = path.stat().st_size
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(_MOST_HEADER, size - 8):
            raise refused(
                path,
                f"has {size} bytes, and its header would have {length}: it was cut short, or is no "
                "safetensors file",
            )
        text = file.read(length)
    header = _parsed(path, text)
    metadata = header.pop(_METADATA, {})
    if not isinstance(metadata, dict):
        raise refused(path, f"has {_METADATA} = {shown(metadata)}, which is no object")
    spans = {name: _span(path, name, entry) for name, entry in header.items()}
    _check_spans(path, spans, size - 8 - length)
    data = np.memmap(path, np.uint8, "r", offset=8 + length) if size > 8 + length else b""
    arrays = {
        name: np.frombuffer(data, dtype, math.prod(shape), begin).reshape(shape)
        for name, (begin, _, dtype, shape) in spans.items()
    }
    return arrays, metadata


def _parsed(path: Path, text: bytes) -> dict[str, Any]:
    try:
        header = json.loads(text, object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError) as error:
        raise refused(path, f"has a header that is no JSON: {error}") from None
    if not isinstance(header, dict):
        raise refused(path, f"has the header {shown(header)}, which is no object")
    return header


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name stands there twice")
    return found


def _span(path: Path, name: str, entry: Any) -> tuple[int, int, np.dtype, tuple[int, ...]]:
    """Returns (first byte, end, dtype, shape) of an array."""
    try:
        (begin, end), shape, kind = entry["data_offsets"], tuple(entry["shape"]), entry["dtype"]
        whole = all(type(number) is int and number >= 0 for number in (begin, end, *shape))
    except (KeyError, TypeError, ValueError):
        whole = False
    if not whole:
        raise refused(path, f"says {shown(entry)} of {name}, which is no dtype, shape and offsets")
    if kind not in _DTYPES:
        raise refused(path, f"holds {name} as {kind}; types are {', '.join(_DTYPES)}")
    dtype = np.dtype(_DTYPES[kind])
    if end - begin != math.prod(shape) * dtype.itemsize:
        raise refused(
            path,
            f"has {end - begin} bytes for {name}, and {kind} of shape {list(shape)} takes "
            f"{math.prod(shape) * dtype.itemsize}",
        )
    return begin, end, dtype, shape


def _check_spans(path: Path, spans: Mapping[str, tuple], size: int) -> None:
    """Raises ValueError unless arrays stand one behind the other and fill the file."""
    end, before = 0, "the header"
    for name, (begin, stop, *_) in sorted(spans.items(), key=lambda item: item[1][:2]):
        if begin != end:
            what = "overlap" if begin < end else "leave bytes between them"
            raise refused(path, f"has offsets of {before} and {name} that {what}")
        end, before = stop, name
    if end != size:
        what = "it was cut short" if size < end else "bytes follow that nobody describes"
        raise refused(path, f"has {size} bytes of arrays where its header says {end}: {what}")
