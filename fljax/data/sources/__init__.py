"""Data sources by name: `load("mnist", partition="dirichlet", num_clients=100, alpha=0.3)`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from fljax.core import parts
from fljax.core.values import shown
from fljax.data.checks import checked
from fljax.data.dataset import FederatedDataset
from fljax.data.partitions.partition_names import PARTITIONERS
from fljax.data.readers.fedjax import fedjax
from fljax.data.readers.huggingface import huggingface
from fljax.data.readers.image_folder import image_folder
from fljax.data.readers.leaf import leaf
from fljax.data.readers.tabular import arrow, csv, numpy, parquet
from fljax.data.readers.tfds import tfds
from fljax.data.readers.tff import tff
from fljax.data.sources.activity import uci_har
from fljax.data.sources.adult import adult
from fljax.data.sources.cifar100 import cifar100
from fljax.data.sources.digits import digits
from fljax.data.sources.emnist import emnist
from fljax.data.sources.heart import heart_disease
from fljax.data.sources.images import cifar10, fashion_mnist, mnist, mnist_writers
from fljax.data.sources.interactions import interactions
from fljax.data.sources.libsvm import a9a, libsvm, mushrooms, w8a
from fljax.data.sources.medical import brain_mri, pneumonia_xray
from fljax.data.sources.shakespeare import shakespeare
from fljax.data.sources.stackoverflow import stackoverflow_lr, stackoverflow_nwp
from fljax.data.sources.synthetic import synthetic
from fljax.data.splits.root import with_root

SOURCES: dict[str, Callable[..., FederatedDataset]] = {
    "digits": digits,
    "mnist": mnist,
    "fashion_mnist": fashion_mnist,
    "mnist_writers": mnist_writers,
    "cifar10": cifar10,
    "cifar100": cifar100,
    "emnist": emnist,
    "shakespeare": shakespeare,
    "stackoverflow_nwp": stackoverflow_nwp,
    "stackoverflow_lr": stackoverflow_lr,
    "heart_disease": heart_disease,
    "adult": adult,
    "uci_har": uci_har,
    "brain_mri": brain_mri,
    "pneumonia_xray": pneumonia_xray,
    "a9a": a9a,
    "mushrooms": mushrooms,
    "w8a": w8a,
    "libsvm": libsvm,
    "interactions": interactions,
    "synthetic": synthetic,
    "csv": csv,
    "parquet": parquet,
    "arrow": arrow,
    "numpy": numpy,
    "leaf": leaf,
    "tff": tff,
    "fedjax": fedjax,
    "image_folder": image_folder,
    "tfds:NAME": tfds,
    "huggingface": huggingface,
}

# Those whose rows have clients of their own.
NATURAL = (
    *("mnist_writers", "emnist", "cifar100", "shakespeare", "stackoverflow_nwp"),
    *("stackoverflow_lr", "heart_disease", "uci_har", "brain_mri", "synthetic"),
    *("leaf", "tff", "fedjax", "interactions"),
)

# Those whose rows have clients where an option says which: {source: option}.
BY_OPTION = {"csv": "client", "parquet": "client", "arrow": "client", "numpy": "client"}


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
    concept_shift: str | None = None,
    label_noise: str | None = None,
    held_out_fraction: float = 0.0,
    held_out_folds: int | None = None,
    held_out_fold: int | None = None,
    val_fraction: float = 0.0,
    data_checks: str | None = None,
    root_rows: int = 0,
    concept_drift: str | None = None,
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
        of the source are then divided among the clients alike, see `from_arrays`; clients that
        files have test rows of alone stay held out.
      feature_skew: Gives clients unlike features by domain, see `with_feature_skew`.
      concept_shift: Lets labels mean unlike things to clients, see `with_concept_shift`.
      label_noise: Gives training rows wrong labels, see `with_label_noise`.
      held_out_fraction: Share of the clients that never train, see `with_held_out`.
      held_out_folds, held_out_fold: Hold one of so many folds out instead, see `with_fold`.
      val_fraction: Share of the training rows to split off for validation, client by client.
      data_checks: Looks for faults, and says what is done about them, see `checked`.
      root_rows: Gives the server so many rows of its own, see `with_root`.
      concept_drift: Lets what clients hold change from round to round, see `with_concept_drift`.
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
        "concept_shift": concept_shift,
        "label_noise": label_noise,
        "held_out_fraction": held_out_fraction or None,
        "held_out_folds": held_out_folds,
        "held_out_fold": held_out_fold,
        "val_fraction": val_fraction or None,
        "concept_drift": concept_drift,
    }
    said = {key: value for key, value in settings.items() if value is not None}
    dataset = make(name, {"seed": seed, **said}, needed=said, given=options)
    dataset = dataset if data_checks is None else checked(dataset, data_checks)
    return with_root(dataset, root_rows, seed) if root_rows else dataset


def has_clients(text: str, options: Mapping[str, Any]) -> bool:
    """Returns whether the rows of a source have clients of their own.

    Args:
      text: What names it.
      options: Those beside the text.
    """
    name = parts.name_of(text)
    option = BY_OPTION.get(name)
    if option is None:
        return name in NATURAL
    written = parts.written(parts.read_one("dataset", text, SOURCES))
    return {**written, **options}.get(option) is not None


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
    *("feature_skew", "concept_shift", "label_noise", "val_fraction", "concept_drift"),
    *("held_out_fraction", "held_out_folds", "held_out_fold"),
    *(
        name
        for partitioner in PARTITIONERS.values()
        for name in inspect.signature(partitioner).parameters
        if name not in ("labels", "client_ids")
    ),
]
