"""Flattens the state of a run to a list of leaves: what a checkpoint stores and says of them."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

PyTree = Any

_SHOWN_DIFFERENCES = 5


def leaves_of(tree: PyTree) -> list[tuple[str, Any]]:
    """Returns (path, leaf) of every leaf."""
    return [
        (jax.tree_util.keystr(path), leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    ]


def on_host(state: PyTree) -> tuple[list[str], list[Any]]:
    """Returns paths and leaves on the host, none of which is a view of a device's buffer.

    On a CPU `device_get` gives such views. Arrays of one's own are copied by Orbax.
    """
    for path, leaf in leaves_of(state):
        dtype = getattr(leaf, "dtype", None)
        numeric = dtype is not None and any(
            jax.numpy.issubdtype(dtype, kind) for kind in (np.number, np.bool_)
        )
        if not (numeric or _is_number(leaf)):
            raise TypeError(
                f"cannot checkpoint {path or 'the state'}, a {type(leaf).__name__} of dtype "
                f"{dtype}: the state holds arrays of numbers and Python numbers; text belongs in "
                "the metadata, a PRNG key goes as jax.random.key_data(key)"
            )
    host = leaves_of(jax.device_get(state))
    return [path for path, _ in host], [
        leaf if _is_number(leaf) or _owns_numbers(leaf) else np.array(leaf) for _, leaf in host
    ]


def _owns_numbers(leaf: Any) -> bool:
    return isinstance(leaf, np.ndarray) and leaf.flags.owndata


def _is_number(leaf: Any) -> bool:
    return isinstance(leaf, bool | int | float) and not isinstance(leaf, np.generic)


def describe(leaf: Any) -> dict[str, Any]:
    """Returns what a leaf is, as JSON values; of a Python number, its value too."""
    if _is_number(leaf):
        return {"python": type(leaf).__name__, "value": leaf}
    return {"dtype": str(leaf.dtype), "shape": list(leaf.shape)}


def spell(description: Mapping[str, Any]) -> str:
    """Returns a description for people."""
    if "python" in description:
        return f"a Python {description['python']}"
    return f"{description['dtype']}{description['shape']}"


def empty(description: Mapping[str, Any]) -> Any:
    """Returns a leaf of that description; an array's values are arbitrary."""
    if "python" in description:
        return description["value"]
    return np.empty(description["shape"], jax.numpy.dtype(description["dtype"]))


def _name(index: int) -> str:
    return f"{index:06d}"


def stored_arrays(leaves: list[Any]) -> dict[str, np.ndarray]:
    """Names the arrays; those without elements hold no bits, and Orbax refuses them.

    It refuses an empty dict too, hence the marker.
    """
    arrays = {
        _name(index): leaf
        for index, leaf in enumerate(leaves)
        if isinstance(leaf, np.ndarray) and leaf.size > 0
    }
    return arrays | {"marker": np.zeros(1, np.int32)}


def from_stored(arrays: Mapping[str, np.ndarray], places: list[Any]) -> list[Any]:
    """Returns the leaves that have their place in `places`; a number is its own place."""
    return [arrays.get(_name(index), place) for index, place in enumerate(places)]


def checksum(leaf: Any) -> dict[str, int]:
    """Returns the entry of an array's checksum; numbers stand in the description themselves."""
    if _is_number(leaf):
        return {}
    return {"crc32": zlib.crc32(np.ascontiguousarray(leaf).view(np.uint8).reshape(-1))}


def text_checksum(description: Mapping[str, Any]) -> int:
    """Returns the checksum of JSON values, the same before and after they were in a file."""
    # keys become texts before they are sorted
    text = json.dumps(json.loads(json.dumps(description)), sort_keys=True)
    return zlib.crc32(text.encode())


def differences_between(saved: list[dict[str, Any]], template: list[tuple[str, Any]]) -> list[str]:
    """Returns lines on the leaves that a checkpoint and a run do not have alike, the first few.

    Args:
      saved: What the checkpoint says of its leaves, as from `describe`.
      template: (path, leaf) of the run's.
    """
    in_checkpoint = {leaf["path"]: spell(leaf) for leaf in saved}
    in_run = {path: spell(describe(leaf)) for path, leaf in template}
    lines = [
        f"  {path or 'the state'}: {in_checkpoint.get(path, 'absent')} in the checkpoint, "
        f"{in_run.get(path, 'absent')} in this run"
        for path in in_checkpoint | in_run
        if in_checkpoint.get(path) != in_run.get(path)
    ]
    more = len(lines) - _SHOWN_DIFFERENCES
    return lines[:_SHOWN_DIFFERENCES] + ([f"  and {more} more"] if more > 0 else [])
