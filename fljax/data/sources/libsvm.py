"""LIBSVM's data sets a9a, mushrooms and w8a, and any other file of that format.

Those of most theory papers: logistic regression over rows of 0 or 1 (Chang and Lin 2011, LIBSVM).
Features stay bytes in memory, and are float32 to the model.
"""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from fljax.core.archives import refused
from fljax.core.data_files import find_file, missing_files, resolve_data_dir
from fljax.core.values import COUNT, Field, checked, checked_path
from fljax.data.arrays import from_arrays
from fljax.data.dataset import FederatedDataset
from fljax.data.readers.libsvm import largest_place, read_libsvm
from fljax.data.splits.stratified import stratified

_FOLDER = "libsvm"
_ROWS = {"a9a": 32561, "a9a.t": 16281, "mushrooms": 8124, "w8a": 49749, "w8a.t": 14951}
_EDIBLE = ("edible", "poisonous")
_TARGETS = Field("classes", str, ("classes", "numbers"))
_VALUES = Field("float32", str, ("float32", "uint8"))


def a9a(*, data_dir=None, **clients) -> FederatedDataset:
    """a9a: the Adult data as 123 features of 0 or 1; 32,561 + 16,281 rows, 24 % of class 1.

    Reads `libsvm/a9a` and `libsvm/a9a.t` of the data directory. Platt 1998 made the features of
    Adult, ages and hours by quintile; the data set `adult` has numbers instead, and sex and race
    beside the rows.

    Args:
      data_dir: See `fljax.core.data_files.resolve_data_dir`.
      **clients: partition, num_clients, seed, val_fraction and the partition's options, as in
        `from_arrays`.

    Raises:
      FileNotFoundError: If a file is missing.
      ValueError: If a file is not what was expected, or the partition is not possible.

    Example:
      >>> dataset = data.a9a(num_clients=80)  # doctest: +SKIP
    """
    (x, y), (x_test, y_test) = _files("a9a", ("a9a", "a9a.t"), 123, data_dir)
    return _dataset("a9a", x, y > 0, x_test, y_test > 0, ("<=50K", ">50K"), clients)


def mushrooms(
    *, data_dir=None, test_fraction: float = 0.2, split_seed: int = 0, **clients
) -> FederatedDataset:
    """Mushrooms: 8,124 of them, 112 features of 0 or 1, y 1 for the 3,916 that are poisonous.

    Reads `libsvm/mushrooms` of the data directory, and divides it by class into rows to train and
    rows to test on, which do not change with `seed`; there is no official split.

    Args:
      data_dir: See `fljax.core.data_files.resolve_data_dir`.
      test_fraction: Share of each class that is tested on.
      split_seed: Chooses the test rows.
      **clients: As in `a9a`.

    Raises:
      FileNotFoundError: If the file is missing.
      ValueError: If the file is not what was expected, or the partition is not possible.

    Example:
      >>> dataset = data.mushrooms(num_clients=12)  # doctest: +SKIP
    """
    [(x, y)] = _files("mushrooms", ("mushrooms",), 112, data_dir)
    return _divided("mushrooms", x, y == 1, test_fraction, split_seed, _EDIBLE, clients)


def w8a(
    *, data_dir=None, test_fraction: float = 0.2, split_seed: int = 0, **clients
) -> FederatedDataset:
    """w8a: web pages as 300 key words, there or not; 49,749 rows, 3 % of class 1 (Platt 1998).

    Reads `libsvm/w8a` of the data directory.

    Args:
      data_dir: See `fljax.core.data_files.resolve_data_dir`.
      test_fraction: Share of each class of these rows that is tested on; 0 trains on all of them
        and tests on the 14,951 rows of the official `libsvm/w8a.t`.
      split_seed: Chooses the test rows.
      **clients: As in `a9a`.

    Raises:
      FileNotFoundError: If a file is missing.
      ValueError: If a file is not what was expected, or the partition is not possible.

    Example:
      >>> dataset = data.w8a(num_clients=100)  # doctest: +SKIP
    """
    if not test_fraction:
        (x, y), (x_test, y_test) = _files("w8a", ("w8a", "w8a.t"), 300, data_dir)
        return _dataset("w8a", x, y > 0, x_test, y_test > 0, None, clients)
    [(x, y)] = _files("w8a", ("w8a",), 300, data_dir)
    return _divided("w8a", x, y > 0, test_fraction, split_seed, None, clients)


def libsvm(
    *,
    path: str,
    test_path: str | None = None,
    num_features: int | None = None,
    targets: str = "classes",
    values: str = "float32",
    data_dir=None,
    **clients,
) -> FederatedDataset:
    """A file of LIBSVM's format, of one's own: x [D], y its labels.

    Args:
      path: Of the file, packed (.gz, .bz2) or not; relative ones from the data directory.
      test_path: Of the test rows.
      num_features: D; None: the largest place that a file names, for which it is read once more.
      targets: "classes" numbers the labels, which are whole numbers, in rising order; "numbers"
        keeps them for a task of regression.
      values: "float32", or "uint8" for features that are whole numbers from 0 to 255, a quarter of
        the memory; they are float32 to the model.
      data_dir: See `fljax.core.data_files.resolve_data_dir`.
      **clients: As in `a9a`.

    Raises:
      FileNotFoundError: If a file is missing.
      ValueError: If a file is none of this format, or the partition is not possible.

    Example:
      >>> dataset = data.load("libsvm", path="rcv1.binary", num_clients=100)  # doctest: +SKIP
    """
    targets = checked("targets", targets, _TARGETS)
    dtype = np.dtype(checked("values", values, _VALUES))
    num_features = checked("num_features", num_features, Field(None, int, COUNT, optional=True))
    root = resolve_data_dir(data_dir)
    given = {"path": path} | ({} if test_path is None else {"test_path": test_path})
    paths = {key: root / checked_path(key, value) for key, value in given.items()}
    for key, found in paths.items():
        if not found.is_file():
            raise FileNotFoundError(f"{key} = {given[key]!r}: there is no file {found}")
    if num_features is None:
        num_features = max(map(largest_place, paths.values()))
    (x, y), *test = (read_libsvm(found, num_features, dtype) for found in paths.values())
    x_test, y_test = test[0] if test else (None, None)
    names = None
    if targets == "classes":
        names = _classes(paths, y, y_test)
        y, y_test = (None if each is None else np.searchsorted(names, each) for each in (y, y_test))
        names = [f"{label:g}" for label in names]
    kind = "targets" if names is None else "classification"
    return _dataset(paths["path"].name, x, y, x_test, y_test, names, {"kind": kind, **clients})


def _classes(paths: dict[str, pathlib.Path], y, y_test) -> np.ndarray:
    """Returns the labels that there are; refuses those that are no whole numbers."""
    for found, labels in zip(paths.values(), (y, y_test), strict=False):
        wrong_labels = labels[labels != np.rint(labels)]
        if wrong_labels.size:
            raise refused(
                found,
                f"has the label {wrong_labels[0]:g}, which is no class: set targets = 'numbers'",
            )
    return np.unique(y if y_test is None else np.concatenate([y, y_test]))


def _files(name: str, files: Sequence[str], num_features: int, data_dir):
    """Returns (x uint8[rows, D], y float64[rows]) of each file of a data set by name."""
    root = resolve_data_dir(data_dir)
    paths = [find_file(root / _FOLDER, file) for file in files]
    if not all(paths):
        wanted = [f"{_FOLDER}/{f}" for f, path in zip(files, paths, strict=True) if path is None]
        raise FileNotFoundError(missing_files(name, wanted, root))
    found = []
    for file, path in zip(files, paths, strict=True):
        x, y = read_libsvm(path, num_features, np.uint8)
        if len(y) != _ROWS[file]:
            raise refused(path, f"has {len(y)} rows, not {_ROWS[file]}: download it again")
        found.append((x, y))
    return found


def _divided(name: str, x, y, test_fraction, split_seed, names, clients) -> FederatedDataset:
    is_test = stratified(y, test_fraction, split_seed, f"{name}/split")
    return _dataset(name, x[~is_test], y[~is_test], x[is_test], y[is_test], names, clients)


def _dataset(name: str, x, y, x_test, y_test, names, clients) -> FederatedDataset:
    return from_arrays(
        x,
        y,
        x_test=x_test,
        y_test=y_test,
        class_names=names,
        preprocess=_to_float32 if x.dtype == np.uint8 else None,
        name=name,
        **clients,
    )


def _to_float32(batch):
    return {**batch, "x": batch["x"].astype(jnp.float32)}
