"""Numbers labels 0, 1, 2, ..., with the names of the classes where they came as texts."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from fljax.core.values import sequence
from fljax.data.examples import Examples
from fljax.data.partitions.partition_arguments import check_count
from fljax.data.tables import is_missing
from fljax.data.values import place_of, sample

_LARGEST = np.iinfo(np.int32).max - 1
# Labels that number something else (postal codes, say) would make a model of as many outputs.
_MANY_CLASSES, _SPARSE = 10_000, 10
# Rows of generated examples that are looked at.
_GENERATED = 64
# Labels that are looked at at a time.
_BLOCK = 2**20


class Labels(NamedTuple):
    """Class numbers of the training and test rows.

    Attributes:
      y: int32[rows], or a memmap as it was given.
      y_test: Like y, or None.
      num_classes: Number of classes.
      class_names: The name of each class where labels came as texts, or None.
    """

    y: np.ndarray
    y_test: np.ndarray | None
    num_classes: int
    class_names: tuple[str, ...] | None


def encode(
    y: np.ndarray,
    y_test: np.ndarray | None,
    num_classes: int | None = None,
    class_names: Sequence[str] | None = None,
) -> Labels:
    """Returns labels as class numbers.

    Texts are numbered in the order of `class_names`, by default sorted, over training and test rows
    together. Integers are class numbers already.

    Args:
      y: [rows] integers, booleans or texts.
      y_test: Like y, or None.
      num_classes: Default: as many as are named, else the largest label plus one.
      class_names: Names of the classes, in the order of their numbers.

    Raises:
      ValueError: If labels are no classes, or do not fit the other arguments.
    """
    given = {name: labels for name, labels in (("y", y), ("y_test", y_test)) if labels is not None}
    given = {name: _one_per_row(labels, name) for name, labels in given.items()}
    texts = {name: labels.dtype.kind == "U" for name, labels in given.items()}
    if texts["y"] != texts.get("y_test", texts["y"]):
        raise ValueError(
            f"y holds {given['y'].dtype} and y_test {given['y_test'].dtype}: give both as texts, "
            "or both as class numbers"
        )
    names = None if class_names is None else _names(class_names)
    if num_classes is not None:
        num_classes = check_count("num_classes", num_classes)
    if texts["y"]:
        names = names or tuple(np.unique(np.concatenate(list(given.values()))).tolist())
        given = {name: _numbered(labels, names, name) for name, labels in given.items()}
    else:
        for name, labels in given.items():
            _check_numbers(labels, name)
    chosen = _num_classes(given, num_classes, names)
    stored = {
        name: labels
        if isinstance(labels, np.memmap) and labels.dtype.isnative
        else labels.astype(np.int32, copy=False)
        for name, labels in given.items()
    }
    return Labels(stored["y"], stored.get("y_test"), chosen, names)


def sample_labels(examples: Examples) -> tuple[np.ndarray | None, np.ndarray]:
    """Returns (labels, their rows): all, but of large files and of generated examples only some.

    Labels are None where the examples have no array `y`, or several.
    """
    if not hasattr(examples.spec.get("y"), "dtype") or not examples.num_examples:
        return None, np.arange(0)
    return sample_targets(examples)


def sample_targets(examples: Examples) -> tuple[Any, np.ndarray]:
    """Returns (y, its rows) as `sample_labels`, of one array or several."""
    if examples.arrays is None:
        last = max(examples.num_examples - 1, 0)
        rows = np.unique(np.linspace(0, last, _GENERATED).astype(np.int64))
        return examples.take(rows)["y"], rows
    leaves, structure = jax.tree.flatten(examples.arrays["y"])
    rows = min((sample(leaf)[1] for leaf in leaves), key=len)
    taken = [leaf if len(rows) == len(leaf) else np.asarray(leaf[rows]) for leaf in leaves]
    return jax.tree.unflatten(structure, taken), rows


def _one_per_row(y: np.ndarray, name: str) -> np.ndarray:
    """Returns labels as a vector of integers, booleans or texts; refuses others with the remedy."""
    if y.ndim == 2 and y.shape[1] == 1:
        raise ValueError(
            f"{name} is of shape {list(y.shape)}: give {name}.ravel(), one label a row"
        )
    if y.ndim == 2 and y.dtype.kind in "fiub" and y.size and _is_one_hot(y):
        raise ValueError(
            f"{name} of shape {list(y.shape)} is one-hot: give {name}.argmax(axis=1), one label a "
            "row"
        )
    if y.ndim != 1:
        raise ValueError(
            f"{name} must be [rows] labels for classification, not of shape {list(y.shape)}: other "
            "targets need kind='targets' and a task of your own (docs/extending.md)"
        )
    if y.dtype.kind == "O":
        y = _from_objects(y, name)
    if y.dtype.kind == "S":
        y = _decoded(y, name)
    if y.dtype.kind in "iubU":
        return y
    remedy = "encode the classes as 0, 1, 2, ..."
    if y.dtype.kind == "f":
        missing = np.flatnonzero(np.isnan(y))
        if missing.size:
            raise ValueError(
                f"{place_of(name, missing[:1])} is nan, as are {missing.size} of {y.size} labels: "
                "drop these rows"
            )
        if np.array_equal(y, np.floor(y)):
            remedy = f"give {name}.astype(int)"
        else:
            row = np.flatnonzero(y != np.floor(y))[:1]
            remedy = (
                f"{place_of(name, row)} is {y[row[0]]:g}, so this is no classification. Cut it "
                "into classes (np.digitize), or give kind='targets' and a task of your own "
                "(docs/extending.md)"
            )
    raise ValueError(f"{name} must hold integers or texts, not {y.dtype}: {remedy}")


def _is_one_hot(y: np.ndarray) -> bool:
    return bool(np.all((y == 0) | (y == 1)) and np.all(np.sum(y, axis=1) == 1))


def _from_objects(y: np.ndarray, name: str) -> np.ndarray:
    """Returns labels that are Python objects as an array of texts, integers or floats."""
    for row, value in enumerate(y):
        if is_missing(value):
            raise ValueError(f"{place_of(name, [row])} is missing ({value!r}): drop such rows")
    kinds = {_kind_of(value) for value in y}
    if len(kinds) > 1 or None in kinds:
        first = {_kind_of(value): value for value in y[::-1]}
        found = ", ".join(f"{value!r} ({type(value).__name__})" for value in first.values())
        raise ValueError(
            f"{name} mixes labels such as {found}: make all of them texts, or integers"
        )
    converted = np.array(y.tolist())
    if converted.dtype.kind in "US" and converted.tolist() != y.tolist():
        row = next(r for r, (a, b) in enumerate(zip(converted.tolist(), y, strict=True)) if a != b)
        raise ValueError(
            f"{place_of(name, [row])} is {y[row]!r}, which ends in a NUL that NumPy drops: strip it"
        )
    if converted.dtype.kind == "O" or kinds == {int} and converted.dtype.kind == "f":
        raise ValueError(f"{name} holds integers beyond 64 bits: {_renumber(name)}")
    return converted


def _decoded(y: np.ndarray, name: str) -> np.ndarray:
    try:
        return np.char.decode(y, "utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{name} holds bytes that are no UTF-8 ({error.object!r}): give texts, decoded as they "
            "were written, such as np.char.decode(y, 'latin-1')"
        ) from None


def _kind_of(value) -> type | None:
    kinds = ((bool, np.bool_), (int, np.integer), (float, np.floating), (str,), (bytes,))
    return next((kind[0] for kind in kinds if isinstance(value, kind)), None)


def _names(class_names: Sequence[str]) -> tuple[str, ...]:
    names = tuple(sequence("class_names", class_names, "a list of texts, one a class"))
    names = tuple(name.item() if isinstance(name, np.generic) else name for name in names)
    if not all(isinstance(name, str) for name in names) or len(set(names)) != len(names):
        raise ValueError(f"class_names must be different texts, one a class, not {list(names)[:9]}")
    return names


def _numbered(y: np.ndarray, names: tuple[str, ...], name: str) -> np.ndarray:
    """Returns int32[rows], the place of each text among the names."""
    order = np.argsort(np.array(names))
    known = np.array(names)[order]
    place = np.minimum(np.searchsorted(known, y), len(names) - 1)
    unknown = np.flatnonzero(known[place] != y)
    if unknown.size:
        raise ValueError(
            f"{place_of(name, unknown[:1])} is {str(y[unknown[0]])!r}, which is none of the "
            f"class_names {', '.join(map(repr, names[:9]))}{', ...' * (len(names) > 9)}"
        )
    return order[place].astype(np.int32)


def _check_numbers(y: np.ndarray, name: str) -> None:
    if not y.size:
        return
    if y.min() < 0:
        raise ValueError(
            f"{name} has the negative label {y.min()} ({place_of(name, [np.argmin(y)])}); classes "
            f"are 0, 1, 2, ...: {_renumber(name)}, or drop rows without a label"
        )
    if y.max() > _LARGEST:
        raise ValueError(
            f"{place_of(name, [np.argmax(y)])} is {y.max()}, and labels are the numbers of "
            f"classes, 0, 1, 2, ...: {_renumber(name)}"
        )


def _renumber(name: str) -> str:
    return f"number them from 0 (classes, {name} = np.unique({name}, return_inverse=True))"


def _num_classes(given, wanted: int | None, names: tuple[str, ...] | None) -> int:
    """Returns the number of classes: as wanted or named if it suffices, or the labels' own."""
    seen = 1 + max(int(labels.max()) for labels in given.values() if labels.size)
    if names is not None and wanted not in (None, len(names)):
        raise ValueError(
            f"num_classes={wanted}, but {len(names)} classes have names: "
            f"{', '.join(map(repr, names[:9]))}. Leave num_classes out, or name all in class_names"
        )
    known = wanted if names is None else len(names)
    if known is not None and known < seen:
        what = "num_classes=" if names is None else "the number of class_names is "
        raise ValueError(f"{what}{known}, but the labels go up to {seen - 1}")
    if known is None:
        _check_own_number(given, seen)
    if wanted is None:
        _warn_of_untrained(given)
    return known or seen


def _check_own_number(given, seen: int) -> None:
    """Looks at labels that say themselves how many classes there are."""
    different = np.unique(np.concatenate([_different(labels) for labels in given.values()]))
    if seen > _MANY_CLASSES and seen > _SPARSE * different.size:
        raise ValueError(
            f"y goes up to {seen - 1}, but has only {different.size} different labels: "
            f"{_renumber('y')}, or say how many classes there are (num_classes={seen})"
        )
    if seen == 1:
        warnings.warn("All labels are 0: with one class there is nothing to learn.", stacklevel=2)
    empty = seen - different.size
    if different[0] > 0 or empty > seen // 2:
        unseen = "class 0" if empty == 1 and different[0] else f"{empty} of {seen} classes"
        warnings.warn(
            f"The labels go from {different[0]} to {seen - 1}: {unseen} without rows, for which "
            f"the model has outputs all the same. Say num_classes={seen} if that is meant, or "
            f"{_renumber('y')}.",
            stacklevel=2,
        )


def _different(labels: np.ndarray) -> np.ndarray:
    """Returns the different labels, none below 0, in order: of millions without sorting them."""
    highest = int(labels.max(initial=0))
    if highest > labels.size or labels.dtype.kind not in "iu":
        return np.unique(labels)
    found = np.zeros(highest + 1, bool)
    for start in range(0, labels.size, _BLOCK):
        found[labels[start : start + _BLOCK]] = True
    return np.flatnonzero(found)


def _warn_of_untrained(given) -> None:
    if "y_test" not in given:
        return
    never = np.setdiff1d(*(_different(given[name]) for name in ("y_test", "y")))
    if never.size:
        warnings.warn(
            f"{never.size} classes of y_test, such as {never[0]}, have no training row.",
            stacklevel=2,
        )
