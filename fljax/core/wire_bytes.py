"""Writes what a client sends as bytes, and reads it on the server: for deployments.

Inside the round program payloads are arrays, whose bits are counted and whose bytes are never made.
Where clients are machines of their own, the last link of the uplink that covers a name makes them
(`UplinkLink.to_wire`); what no link covers are the arrays themselves, little-endian, in C order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from fljax.core.links import UplinkLink, dense_bits
from fljax.core.transforms import Pipeline

PyTree = Any


def dense_to_bytes(value: PyTree) -> tuple[bytes, ...]:
    """Returns the arrays of a pytree as they are, one part each.

    Example:
      >>> [len(part) for part in dense_to_bytes({"b": np.zeros(3, np.float32), "w": np.int8(1)})]
      [12, 1]
    """
    leaves = map(np.asarray, jax.tree.leaves(value))
    return tuple(leaf.astype(leaf.dtype.newbyteorder("<")).tobytes() for leaf in leaves)


def dense_from_bytes(parts: Sequence[bytes], like: PyTree) -> PyTree:
    """Returns what `dense_to_bytes` has written.

    Args:
      parts: The parts.
      like: Arrays, or shapes with their dtypes, of the same structure.

    Raises:
      ValueError: If parts are missing, too many, or of another length.

    Example:
      >>> value = {"w": np.arange(3.0)}
      >>> dense_from_bytes(dense_to_bytes(value), value)["w"].tolist()
      [0.0, 1.0, 2.0]
    """
    leaves, tree = jax.tree.flatten(like)
    expected = [int(np.prod(leaf.shape)) * np.dtype(leaf.dtype).itemsize for leaf in leaves]
    if [len(part) for part in parts] != expected:
        raise ValueError(
            f"A message has parts of {[len(part) for part in parts]} bytes, and the model here "
            f"makes parts of {expected}. Run the same app on all machines."
        )
    arrays = [
        np.frombuffer(part, np.dtype(leaf.dtype).newbyteorder("<"))
        .astype(leaf.dtype)
        .reshape(leaf.shape)
        for part, leaf in zip(parts, leaves, strict=True)
    ]
    return jax.tree.unflatten(tree, arrays)


def to_wire(pipeline: Pipeline, name: str, payload: PyTree) -> tuple[bytes, ...]:
    """Returns what a client sends under a name, as bytes.

    Args:
      pipeline: The transforms between clients and server.
      name: Of the contribution.
      payload: Of `fljax.core.transmission.encode`, on the host.

    Raises:
      ValueError: If the link that made it has no bytes.

    Example:
      >>> [len(part) for part in to_wire(Pipeline(), "update", {"w": np.zeros(3, np.float32)})]
      [12]
    """
    link = _last_link(pipeline, name)
    if link is None or link.to_wire is None:
        return dense_to_bytes(payload)
    return link.to_wire(payload)


def from_wire(pipeline: Pipeline, name: str, parts: Sequence[bytes], like: PyTree) -> PyTree:
    """Returns the payload of a name that `to_wire` has written.

    Args:
      pipeline, name: As for `to_wire`.
      parts: What it returned.
      like: The shapes of such a payload.

    Raises:
      ValueError: If the parts are not those of such a payload.

    Example:
      >>> like = {"w": np.zeros(3, np.float32)}
      >>> parts = to_wire(Pipeline(), "update", like)
      >>> from_wire(Pipeline(), "update", parts, like)["w"].tolist()
      [0.0, 0.0, 0.0]
    """
    link = _last_link(pipeline, name)
    if link is None or link.from_wire is None:
        return dense_from_bytes(parts, like)
    return link.from_wire(parts, like)


def _last_link(pipeline: Pipeline, name: str) -> UplinkLink | None:
    """Returns the link whose payload a name has on the wire; None where no link covers it."""
    found = None
    for link in pipeline.uplink:
        if link.meets([name]):
            found = link
    if found is not None and found.to_wire is None and found.bits is not dense_bits:
        raise ValueError(
            "A link of the uplink counts the bits of its messages by a rule of its own, and does "
            "not say how they are written. Give it `to_wire` and `from_wire`, or leave it out."
        )
    return found
