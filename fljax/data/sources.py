"""Data sources by name: `load("mnist", partition="dirichlet", num_clients=100, alpha=0.3)`."""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fljax.core import parts, random
from fljax.core.settings import DATA
from fljax.core.values import Field, Interval, checked, shown
from fljax.data.adult import adult
from fljax.data.arrays import from_arrays
from fljax.data.dataset import FederatedDataset
from fljax.data.heart import heart_disease
from fljax.data.images import cifar10, fashion_mnist, mnist, mnist_writers
from fljax.data.partition_names import PARTITIONERS
from fljax.data.shakespeare import shakespeare
from fljax.data.synthetic import synthetic

_SHARE = Interval(0, 1, low_open=True, high_open=True)


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
    test_fraction = checked("test_fraction", test_fraction, Field(0.2, float, _SHARE))
    split_seed = checked("split_seed", split_seed, DATA["data_seed"])
    try:
        x, y = _digits_of_scikit_learn()
    except ImportError as error:
        raise ImportError(
            "the digits dataset needs scikit-learn: pip install scikit-learn"
        ) from error
    x = (x / 16.0).astype(np.float32)
    is_test = _stratified(y, test_fraction, split_seed)
    return from_arrays(
        x[~is_test],
        y[~is_test],
        x_test=x[is_test],
        y_test=y[is_test],
        num_classes=10,
        name="digits",
        **clients,
    )


def _digits_of_scikit_learn() -> tuple[np.ndarray, np.ndarray]:
    """Returns (x float64[1797, 64], y int64[1797]), from the file where it lies where it used to.

    To import scikit-learn for it takes longer than all else before the first round.
    """
    package = importlib.util.find_spec("sklearn")
    if package is not None and package.submodule_search_locations:
        path = Path(package.submodule_search_locations[0]) / "datasets/data/digits.csv.gz"
        if path.is_file():
            table = np.loadtxt(path, delimiter=",")
            return table[:, :-1], table[:, -1].astype(np.int64)
    from sklearn.datasets import load_digits

    return load_digits(return_X_y=True)


def _stratified(labels: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Returns bool[rows], true for the rounded share of each class."""
    rng = random.generator(seed, "digits/split")
    chosen = np.zeros(labels.size, bool)
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        chosen[rows[: round(fraction * rows.size)]] = True
    return chosen


SOURCES: dict[str, Callable[..., FederatedDataset]] = {
    "digits": digits,
    "mnist": mnist,
    "fashion_mnist": fashion_mnist,
    "mnist_writers": mnist_writers,
    "cifar10": cifar10,
    "shakespeare": shakespeare,
    "heart_disease": heart_disease,
    "adult": adult,
    "synthetic": synthetic,
}

# Those whose rows have clients of their own.
NATURAL = ("mnist_writers", "shakespeare", "heart_disease", "synthetic")


def load(
    name: str,
    *,
    partition: str | None = None,
    num_clients: int | None = None,
    seed: int = 0,
    data_dir=None,
    rows_per_client: int | None = None,
    own_test_fraction: float = 0.0,
    feature_skew: str | None = None,
    held_out_fraction: float = 0.0,
    val_fraction: float = 0.0,
    **options,
) -> FederatedDataset:
    """Loads a source by name and divides it among clients.

    Args:
      name: A key of `SOURCES`, a call of one, or "module:function" of your own, which gets those of
        the arguments below that it names and returns a FederatedDataset.
      partition: A name of `PARTITIONERS`, a call of one, or "module:function" of your own, see
        `make_partition`. Default: the source's natural clients where it has them, else "iid".
      num_clients: N; not needed for natural clients.
      seed: Chooses the partition and the validation rows.
      data_dir: Where the files are; default $FLJAX_DATA_DIR, else ~/.cache/fljax.
      rows_per_client: Of what the partition gives each client, a sample of so many rows; None: all.
      own_test_fraction: Share of its own rows that each client is tested on; training and test rows
        of the source are then divided among the clients alike, see `from_arrays`.
      feature_skew: Gives clients unlike features by domain, see `with_feature_skew`.
      held_out_fraction: Share of the clients that never train, see `with_held_out`.
      val_fraction: Share of the training rows to split off for validation, client by client.
      **options: The partition's (such as `alpha`) and the source's own (such as `standardize`).

    Returns:
      The dataset.

    Raises:
      ValueError: If the name or an option is unknown, the partition is not possible, or a function
        of your own returns something else.
      FileNotFoundError: If the source's files are missing; says which to put where.

    Example:
      >>> dataset = data.load('digits', partition='iid', num_clients=10)
      >>> dataset.num_clients, dataset.train.num_rows
      (10, 1438)
    """
    settings = {
        "partition": partition,
        "num_clients": num_clients,
        "data_dir": data_dir,
        "rows_per_client": rows_per_client,
        "own_test_fraction": own_test_fraction or None,
        "feature_skew": feature_skew,
        "held_out_fraction": held_out_fraction or None,
        "val_fraction": val_fraction or None,
    }
    said = {key: value for key, value in settings.items() if value is not None}
    return make(name, {"seed": seed, **said}, needed=said, given=options)


def make(name: str, offered: Mapping[str, Any], **options: Any) -> FederatedDataset:
    """Returns the data set that a text names; arguments as those of `fljax.core.parts.make`."""
    call = parts.read_one("dataset", name, SOURCES)
    dataset = parts.make(call, offered=offered, rest=_CLIENTS, **options)
    if not isinstance(dataset, FederatedDataset):
        raise ValueError(
            f"{call.where}: {call.name} returned {shown(dataset)} ({type(dataset).__name__}), and "
            "a data set is a FederatedDataset, such as fljax.data.from_arrays(x, y, ...) makes."
        )
    return dataset


# What `**clients` stands for.
_CLIENTS = [
    *("partition", "num_clients", "seed", "rows_per_client", "own_test_fraction"),
    *("feature_skew", "held_out_fraction", "val_fraction"),
    *(
        name
        for partitioner in PARTITIONERS.values()
        for name in inspect.signature(partitioner).parameters
        if name not in ("labels", "client_ids")
    ),
]
