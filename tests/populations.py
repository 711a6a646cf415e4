"""Small populations for tests of analytics: ragged clients, some of which hold nothing."""

import numpy as np

from fljax.data.dataset import ArrayExamples, FederatedDataset, Partition, Split


def population(sizes, x, y=None, groups=None):
    """Returns a FederatedDataset of rows that lie client after client."""
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    arrays = {"x": np.asarray(x), "y": np.asarray(x if y is None else y)}
    return FederatedDataset(
        "population", "targets", None,
        Split(ArrayExamples(arrays), Partition(offsets)),
        groups={} if groups is None else {"group": groups},
    )  # fmt: skip


def singles(x, y=None):
    """Returns a population whose clients have one row each."""
    return population(np.ones(len(x), int), x, y)
