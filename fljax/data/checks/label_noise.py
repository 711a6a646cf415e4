"""Suspects labels: rows whose nearest neighbours agree on another label."""

from __future__ import annotations

import numpy as np

from fljax.core import random
from fljax.data.checks.reading import flat_features
from fljax.data.checks.rows import Equal, Marks
from fljax.data.checks.settings import Settings
from fljax.data.dataset import FederatedDataset

# Rows that neighbours are sought among, and rows that are judged, at most.
_REFERENCES, _JUDGED = 10_000, 20_000
_BLOCK = 1024


def suspect_labels(dataset: FederatedDataset, settings: Settings, equal: Equal) -> Marks:
    """Marks training rows whose nearest neighbours, of all clients, agree on another label.

    The distance is Euclidean, of features brought to unit deviation. Of more than 20,000 rows a
    seeded sample is judged, by neighbours among 10,000; rows of data without classes are not, nor
    are texts, nor so few rows that none has all its neighbours. A suspicion, no proof: rows at the
    border of two classes are found as well, so that a client's share says more than its rows.
    """
    del equal
    split = dataset.train
    if dataset.kind != "classification" or not split.num_rows:
        return {}
    rng = random.generator(0, "checks/label noise")
    chosen = np.sort(rng.permutation(split.num_rows)[:_JUDGED])
    references = np.sort(rng.permutation(chosen)[:_REFERENCES])
    x, y = _features(dataset, chosen)
    at = np.searchsorted(chosen, references)
    marks = np.zeros(split.num_rows, bool)
    marks[chosen] = _disagree(x, y, at, settings)
    return {"train": marks}


def _features(dataset: FederatedDataset, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns (x float32[rows, numbers] of unit deviation, y) at places of the split's rows."""
    examples = dataset.train.examples.take(dataset.train.rows()[places])
    x = flat_features(examples).astype(np.float32)
    x = np.nan_to_num(x, posinf=0.0, neginf=0.0)
    deviation = x.std(0)
    return (x - x.mean(0)) / np.where(deviation > 0, deviation, 1), np.asarray(examples["y"])


def _disagree(x: np.ndarray, y: np.ndarray, at: np.ndarray, settings: Settings) -> np.ndarray:
    """Returns bool[rows], true where enough of the nearest references share another label."""
    neighbours, marks = settings.neighbours, np.zeros(len(x), bool)
    if len(at) <= neighbours:
        return marks
    squares = (x[at] ** 2).sum(1)
    for start in range(0, len(x), _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, len(x)))
        distances = squares - 2 * x[rows] @ x[at].T
        own: np.ndarray = np.searchsorted(at, rows)
        is_reference = (own < len(at)) & (at[np.minimum(own, len(at) - 1)] == rows)
        distances[is_reference, own[is_reference]] = np.inf
        nearest = np.argpartition(distances, neighbours - 1, axis=1)[:, :neighbours]
        labels = np.sort(y[at[nearest]], axis=1)
        # enough of one label fill a run of that length in the sorted labels
        length = max(1, int(np.ceil(settings.share * neighbours)))
        runs = labels[:, length - 1 :] == labels[:, : neighbours - length + 1]
        others = runs & (labels[:, length - 1 :] != y[rows, None])
        marks[rows] = others.any(1)
    return marks
