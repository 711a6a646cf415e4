"""Checks of whole clients: too few rows, constant features, labels unlike everybody's.

Each check is a function (dataset, settings, marks) -> bool[N] of the training clients; marks are
what the checks of rows found, {check: {role: bool[rows]}}.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from fljax.data.checks.reading import BLOCK_BYTES, flat_features
from fljax.data.checks.settings import Settings
from fljax.data.dataset import FederatedDataset
from fljax.data.examples import row_bytes
from fljax.data.partitions.statistics import label_divergence, split_label_counts

# Rows of a client that are looked at for constant features.
_LOOKED_AT = 1000
# Of labels, in bits: where all clients are alike, a client is not odd for a little more.
_LEAST_DIVERGENCE = 0.05
_LEAST_NOISE = 0.1

Marks = Mapping[str, Mapping[str, np.ndarray]]


def few_rows(dataset: FederatedDataset, settings: Settings, marks: Marks) -> np.ndarray:
    """Marks clients with fewer training rows than `settings.min_rows`."""
    del marks
    return dataset.train.partition.sizes < settings.min_rows


def constant_features(dataset: FederatedDataset, settings: Settings, marks: Marks) -> np.ndarray:
    """Marks clients with far more constant features than others, more than half of all.

    Features are numbers of x that vary among all clients' rows. Of a client 1,000 rows at most are
    looked at; clients with fewer than two are not.
    """
    del marks
    whole_low, whole_high = None, None
    for _, _, low, high in _extremes(dataset):
        whole_low = low.min(0) if whole_low is None else np.minimum(whole_low, low.min(0))
        whole_high = high.max(0) if whole_high is None else np.maximum(whole_high, high.max(0))
    share, seen = np.zeros(dataset.num_clients), np.zeros(dataset.num_clients, bool)
    if whole_low is None or not (whole_low < whole_high).any():
        return seen
    varies = whole_low < whole_high
    for clients, sizes, low, high in _extremes(dataset):
        share[clients] = (low == high)[:, varies].mean(1)
        seen[clients] = sizes >= 2
    return seen & (share > 0.5) & _far_above(share, seen, settings.deviations, 0.0)


def odd_labels(dataset: FederatedDataset, settings: Settings, marks: Marks) -> np.ndarray:
    """Marks clients whose labels are far more unlike all clients' than other clients' are.

    By the Jensen-Shannon divergence beyond what chance gives so few rows, (K - 1) / (8 n ln 2) bits
    of n labels of K classes; targets without classes have none.
    """
    del marks
    if dataset.num_classes is None:
        return np.zeros(dataset.num_clients, bool)
    counts = split_label_counts(dataset)
    sizes = counts.sum(1)
    has_labels = sizes > 0
    divergence = np.zeros(dataset.num_clients)
    divergence[has_labels] = label_divergence(counts)
    chance = (np.count_nonzero(counts.sum(0)) - 1) / (8 * np.log(2) * np.maximum(sizes, 1))
    excess = divergence - np.minimum(chance, 1)
    return has_labels & _far_above(excess, has_labels, settings.deviations, _LEAST_DIVERGENCE)


def noisy_labels(dataset: FederatedDataset, settings: Settings, marks: Marks) -> np.ndarray:
    """Marks clients whose share of suspect labels is far above others', and above a tenth."""
    partition, suspects = dataset.train.partition, marks["suspect_labels"].get("train")
    if suspects is None:
        return np.zeros(dataset.num_clients, bool)
    found = np.bincount(partition.owners()[suspects], minlength=dataset.num_clients)
    share = found / np.maximum(partition.sizes, 1)
    return _far_above(share, partition.sizes > 0, settings.deviations, _LEAST_NOISE)


def _extremes(dataset: FederatedDataset) -> Iterator[tuple[np.ndarray, ...]]:
    """Reads clients with rows, some at a time, in bounded memory.

    Yields:
      (numbers of clients, their rows looked at, lowest and highest value of each feature
      float64[clients, features]).
    """
    partition, examples = dataset.train.partition, dataset.train.examples
    sizes = np.minimum(partition.sizes, _LOOKED_AT)
    filled = np.flatnonzero(sizes)
    step = max(1, BLOCK_BYTES // max(1, row_bytes(examples.spec)))
    part = (np.cumsum(sizes[filled]) - sizes[filled]) // step
    for number in np.unique(part):
        clients = filled[part == number]
        own = sizes[clients]
        starts = np.cumsum(own) - own
        places = np.arange(own.sum()) - np.repeat(starts, own)
        flat = flat_features(examples.take(partition.row_at(np.repeat(clients, own), places)))
        yield clients, own, np.minimum.reduceat(flat, starts), np.maximum.reduceat(flat, starts)


def _far_above(values: np.ndarray, known: np.ndarray, deviations: float, least: float):
    """Returns bool[N], true where a value is so many robust deviations above the median of all.

    Args:
      values: float[N].
      known: bool[N], the values that count.
      deviations: How many.
      least: What a value must be above the median anyhow.
    """
    if not known.any():
        return np.zeros(len(values), bool)
    median = np.median(values[known])
    deviation = 1.4826 * np.median(np.abs(values[known] - median))
    return values > median + max(deviations * deviation, least)
