"""Holds numbers of each client's own: weights, rates, epochs, steps, batch sizes."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np

from fljax.core.values import Field, checked, wrong

# between these, products of weights and updates stay in float32
_WEIGHTS = (1e-30, 1e30)


def is_per_client(value: Any) -> bool:
    """Returns whether a value is a list or an array, and not a single number."""
    return isinstance(value, list | tuple) or getattr(value, "ndim", 0) > 0


def checked_per_client(name: str, values: Any, field: Field) -> np.ndarray:
    """Returns one number for each client as an array, where a field allows all of them.

    Args:
      name: How the user calls it.
      values: [N] list or array of numbers.
      field: What each of them may be: whole numbers of an int field become int64, those of a float
        field float64.

    Raises:
      ValueError: For anything else; the message names the client.
    """
    try:
        array = np.asarray(values)
    except ValueError:
        array = np.asarray(None)  # ragged
    kinds = "iu" if field.kind is int else "iuf"
    if array.ndim != 1 or not array.size or array.dtype.kind not in kinds:
        whole = "whole numbers" if field.kind is int else "numbers"
        raise wrong(name, values, f"a list or an array of {whole}, one for each client")
    if field.kind is int and array.dtype.kind == "u" and array.max() > np.iinfo(np.int64).max:
        checked(f"{name}[{array.argmax()}]", int(array.max()), field)
    array = array.astype(np.int64 if field.kind is int else np.float64)
    # the extremes stand for all, as what is allowed is an interval
    for place in (array.argmin(), array.argmax(), *np.flatnonzero(~np.isfinite(array))[:1]):
        checked(f"{name}[{place}]", array[place].item(), field)
    return array


def check_weights(name: str, weights: np.ndarray) -> None:
    """Raises ValueError for weights that are zero for everybody, or vanish in 32 bits."""
    if not weights.any():
        raise ValueError(f"{name} are 0 for all clients: nobody would count. Give some above 0.")
    low, high = weights[weights > 0].min(), weights.max()
    if low < _WEIGHTS[0] or high > _WEIGHTS[1]:
        raise ValueError(
            f"{name} go from {low:g} to {high:g}, and products with weights below "
            f"{_WEIGHTS[0]:g} or above {_WEIGHTS[1]:g} leave the 32 bits of a run. Only their "
            "ratios count: divide them by their mean."
        )


def check_length(name: str, values: np.ndarray, num_clients: int) -> None:
    """Raises ValueError unless there is one value for each client of the population."""
    if len(values) != num_clients:
        raise ValueError(
            f"{name} has {len(values)} entries, and the data have {num_clients} clients. Give one "
            "for each, in the order of the clients (of dataset.client_ids, where they have ids)."
        )


def described(value: Any) -> Any:
    """Returns a value as records hold it: of an array its length, range and checksum."""
    if not isinstance(value, np.ndarray):
        return value
    checksum = zlib.crc32(np.ascontiguousarray(value).tobytes())
    return {
        "clients": len(value), "min": value.min(), "max": value.max(), "crc32": checksum,
    }  # fmt: skip
