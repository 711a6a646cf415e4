"""Chooses x and y among the named features of a format, and gives them type and shape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fljax.core.values import shown, wrong
from fljax.data.values import first_unheld, place_of


class Fields(NamedTuple):
    """The columns that become x and y.

    Attributes:
      features: The feature that is x, or several that hold one number each, side by side as floats;
        None: the only one beside the label.
      label: The feature that is y, a class; None: "label" or "y" where there is one.
      target: The feature that is y, a number or several, in place of a label.
      shape: Of one x, where the format stores it flat; None: as it is stored.
      dtype: Of x, such as "uint8" for images; None: float32 of floats, integers as they are.
    """

    features: str | tuple[str, ...] | None = None
    label: str | None = None
    target: str | None = None
    shape: tuple[int, ...] | None = None
    dtype: str | None = None


def fields(features=None, label=None, target=None, shape=None, dtype=None) -> Fields:
    """Returns Fields of options as users write them.

    Raises:
      ValueError: If one is of a wrong kind, or both a label and a target are named.
    """
    if features is not None and not isinstance(features, str):
        if isinstance(features, bytes) or not isinstance(features, Sequence) or not features:
            raise wrong("features", features, "the name of a feature, or a list of names")
        features = tuple(features)
    for name, value in (("label", label), ("target", target)):
        if not isinstance(value, str | None):
            raise wrong(name, value, "the name of a feature, or None")
    if label is not None and target is not None:
        raise ValueError(
            f"label = {label!r} and target = {target!r}: y is either a class (label) or a number "
            "(target), leave one out"
        )
    if shape is not None:
        if isinstance(shape, int):
            shape = (shape,)
        if not all(isinstance(size, int) and size > 0 for size in shape):
            raise wrong("shape", shape, "the sizes of one example, such as [28, 28, 1]")
        shape = tuple(shape)
    if dtype is not None:
        try:
            is_number = np.dtype(dtype).kind in "iufb"
        except TypeError:
            is_number = False
        if not is_number:
            raise wrong("dtype", dtype, "a type of numbers, such as 'uint8' or 'float32'")
    return Fields(features, label, target, shape, dtype)


def chosen(names: Sequence[str], wanted: Fields, where: str) -> Fields:
    """Returns the fields with every name said, of the features that there are.

    Args:
      names: Of the features.
      wanted: As the user said it.
      where: What people call the place.

    Raises:
      ValueError: If a name is not there, or nothing says which is meant.
    """
    there = ", ".join(names)
    features = wanted.features
    asked = [features] if isinstance(features, str) else [*(features or ())]
    asked += [name for name in (wanted.label, wanted.target) if name is not None]
    if missing := [name for name in asked if name not in names]:
        raise ValueError(f"{where}: there is no feature {missing[0]!r}, but these: {there}")
    label = wanted.label
    if label is None and wanted.target is None:
        label = next((name for name in ("label", "y") if name in names), None)
    if features is None:
        rest = [name for name in names if name not in (label, wanted.target)]
        if len(rest) > 1 and "x" in rest:
            rest = ["x"]
        if len(rest) != 1:
            raise ValueError(f"{where}: say which of its features is x (features=...): {there}")
        features = rest[0]
    return wanted._replace(features=features, label=label)


def columns(record: Mapping[str, Any], wanted: Fields, where: str) -> dict[str, np.ndarray]:
    """Returns {"x", "y"} of some rows, y where a label or a target is wanted.

    Args:
      record: {feature: array[rows, ...]}, numbers or texts.
      wanted: As `chosen` returns them.
      where: What people call the place.

    Raises:
      ValueError: If a feature is missing, or does not fit the shape or type wanted.
    """
    features = wanted.features
    y = wanted.label if wanted.target is None else wanted.target
    needed = [features] if isinstance(features, str) else list(features)
    for name in [*needed, *([] if y is None else [y])]:
        if name not in record:
            raise ValueError(f"{where}: has no feature {name!r}")
    x = np.asarray(record[needed[0]])
    if len(needed) > 1 or x.ndim == 1 and x.dtype.kind in "iufb":
        numbers = [_numbers(record[name], name, where) for name in needed]
        x = np.stack(numbers, axis=-1).astype(np.float64)
    found = {"x": as_x(x, wanted, where)}
    if wanted.target is not None:
        found["y"] = _numbers(record[y], y, where).astype(np.float32)
    elif y is not None:
        found["y"] = as_label(record[y], y, where)
    return found


def as_x(x: np.ndarray, wanted: Fields, where: str) -> np.ndarray:
    """Returns features in the shape and type wanted; texts stay as they are."""
    if x.dtype.kind in "USO":
        return x
    if wanted.shape is not None:
        if x[0].size != np.prod(wanted.shape):
            raise ValueError(
                f"{where}: an x holds {x[0].size:,} numbers, which are no {list(wanted.shape)} "
                "(shape=...)"
            )
        x = x.reshape(len(x), *wanted.shape)
    if wanted.dtype is None:
        if x.dtype.kind == "f" and x.itemsize > 4 and (found := first_unheld(x)) is not None:
            place, why = found
            raise ValueError(f"{where}: {place_of('x', place)} is {why}")
        return x.astype(np.float32, copy=False) if x.dtype.kind == "f" else x
    dtype = np.dtype(wanted.dtype)
    with np.errstate(invalid="ignore", over="ignore"):
        converted = x.astype(dtype, copy=False)
    if dtype.kind != "f" and not np.array_equal(converted, x):
        value = x.ravel()[np.flatnonzero(converted.ravel() != x.ravel())[0]]
        raise ValueError(f"{where}: x holds {value}, which is no {dtype} (dtype=...)")
    return converted


def as_label(values: Any, name: str, where: str) -> np.ndarray:
    """Returns [rows] classes: integers, or texts.

    Raises:
      ValueError: If there is not one integer or text a row.
    """
    y = np.asarray(values)
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.dtype.kind in "SUO":
        y = _texts(y, values, name, where)
    if y.dtype.kind == "f" and np.isfinite(y).all() and np.array_equal(y, np.floor(y)):
        y = y.astype(np.int64)
    if y.ndim != 1 or y.dtype.kind not in "iubU":
        odd = y[(y != np.floor(y)) | ~np.isfinite(y)] if y.dtype.kind == "f" else y
        what = f"{shown(odd.ravel()[0].item())} ({y.dtype})" if odd.size else str(y.dtype)
        raise ValueError(
            f"{where}: the label {name!r} must be one class a row, an integer or a text, not {what}"
            f" of shape {list(y.shape[1:])}; numbers to be predicted are named by target, not label"
        )
    return (
        y.astype(np.int64) if y.dtype.kind in "ib" or y.dtype.kind == "u" and y.itemsize < 8 else y
    )


def _texts(y: np.ndarray, values: Any, name: str, where: str) -> np.ndarray:
    """Returns labels that are texts or bytes; refuses numbers, of which NumPy would make texts."""
    listed = values if isinstance(values, list) else y.tolist()
    listed = [value.decode() if isinstance(value, bytes) else value for value in listed]
    odd = next((value for value in listed if not isinstance(value, str)), None)
    if odd is not None and y.dtype.kind != "O":
        raise ValueError(f"{where}: the label {name!r} holds {shown(odd)}, and others are texts")
    return np.array(listed)


def _numbers(values: Any, name: str, where: str) -> np.ndarray:
    array = np.asarray(values)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.dtype.kind not in "iufb":
        raise ValueError(f"{where}: {name!r} must hold numbers, not {array.dtype}")
    return array
