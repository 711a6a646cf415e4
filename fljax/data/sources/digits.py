"""The digits of scikit-learn: small images that need no files."""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path

import numpy as np

from fljax.core import optional
from fljax.data.arrays import from_arrays
from fljax.data.dataset import FederatedDataset
from fljax.data.splits.stratified import stratified


def digits(
    *, data_dir=None, split_seed: int = 0, test_fraction: float = 0.2, **clients
) -> FederatedDataset:
    """The digits of scikit-learn: 1,797 images of 8 x 8 pixels, x float32[64] in [0, 1].

    Needs no files. A stratified 80 / 20 split into training and test rows, which does not change
    with `seed`.

    Args:
      data_dir: Not used.
      split_seed: Chooses the test rows.
      test_fraction: Share of each class that is tested on.
      **clients: partition, num_clients, seed, val_fraction and the partition's options, as in
        `from_arrays`.

    Raises:
      ImportError: If scikit-learn is not installed.
      ValueError: If the partition is not possible.

    Example:
      >>> dataset = data.digits(partition='dirichlet', alpha=0.5, num_clients=10)
      >>> dataset.num_clients, dataset.train.num_rows
      (10, 1438)
    """
    del data_dir
    with optional.needed("sklearn"):
        x, y = _digits_of_scikit_learn()
    x = (x / 16.0).astype(np.float32)
    is_test = stratified(y, test_fraction, split_seed, "digits/split")
    return from_arrays(
        x[~is_test],
        y[~is_test],
        x_test=x[is_test],
        y_test=y[is_test],
        num_classes=10,
        name="digits",
        **clients,
    )


@functools.cache
def _digits_of_scikit_learn() -> tuple[np.ndarray, np.ndarray]:
    """Returns (x float64[1797, 64], y int64[1797]), from the file where it lies where it used to.

    To import scikit-learn for it takes longer than all else before the first round, and to read the
    file as long as many a small run: it is read once. Nobody writes to these arrays.
    """
    package = importlib.util.find_spec("sklearn")
    if package is not None and package.submodule_search_locations:
        path = Path(package.submodule_search_locations[0]) / "datasets/data/digits.csv.gz"
        if path.is_file():
            table = np.loadtxt(path, delimiter=",")
            return table[:, :-1], table[:, -1].astype(np.int64)
    from sklearn.datasets import load_digits

    return load_digits(return_X_y=True)
