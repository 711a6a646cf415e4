"""Splits validation rows off inside every client's training data."""

from __future__ import annotations

import numpy as np

from fljax.core import random
from fljax.data.dataset import Partition, offsets_of
from fljax.data.partitions.partition_arguments import partition_setting
from fljax.data.splits.subjects import divided_by_subject


def split_validation(
    partition: Partition, fraction: float, seed: int, subjects: np.ndarray | None = None
) -> tuple[Partition, Partition]:
    """Divides every client's rows into training and validation rows.

    Args:
      partition: Over N clients.
      fraction: Share of all rows that goes to validation, in (0, 1).
      seed: Chooses the rows.
      subjects: int[rows] number of each row's subject, whose rows go one way; a client with one
        subject gives none, and shares hold as nearly as subjects allow.

    Returns:
      (train, val), two partitions over the same N clients and rows; each client with rows keeps at
      least one for training.

    Raises:
      ValueError: If the fraction is outside (0, 1), or the clients cannot spare so many rows.
    """
    fraction = partition_setting("val_fraction", fraction)
    seed = partition_setting("seed", seed)
    if not fraction:
        raise ValueError("val_fraction = 0 leaves nothing for validation; give a share above 0.")
    if subjects is not None:
        given = partition, subjects, fraction, seed
        train, val = divided_by_subject(*given, purpose="validation/subjects", least=0)
        if not val.num_rows:
            raise ValueError(
                f"a validation fraction of {fraction} takes no subject from any client, since each "
                "keeps one: take a larger one"
            )
        return train, val
    sizes = partition.sizes
    counts = _systematic_rounding(_quotas(sizes, fraction), seed)
    if not counts.any():
        raise ValueError(
            f"a validation fraction of {fraction} of {partition.num_rows} rows is less than one row"
        )
    owner = partition.owners()
    shuffled = np.lexsort((random.bits(seed, "validation/rows", partition.all_rows()), owner))
    rank = np.arange(partition.num_rows) - np.repeat(partition.offsets[:-1], sizes)
    is_val = np.empty(partition.num_rows, bool)
    is_val[shuffled] = rank < np.repeat(counts, sizes)
    rows = partition.all_rows()
    train = Partition(offsets_of(sizes - counts), rows[~is_val])
    return train, Partition(offsets_of(counts), rows[is_val])


def _quotas(sizes: np.ndarray, fraction: float) -> np.ndarray:
    """Returns float64[N] validation rows per client, proportional up to `size - 1`."""
    room = np.maximum(sizes - 1, 0).astype(np.float64)
    wanted = fraction * sizes.sum()
    if wanted > room.sum():
        raise ValueError(
            f"a validation fraction of {fraction} needs {wanted:.0f} rows, but the clients can "
            f"spare only {room.sum():.0f} if each keeps one: use a smaller fraction"
        )
    # The common share grows until the clients that can give more make up for those that cannot.
    low, high = fraction, 1.0
    for _ in range(50):
        share = 0.5 * (low + high)
        if np.minimum(share * sizes, room).sum() < wanted:
            low = share
        else:
            high = share
    return np.minimum(high * sizes, room)


def _systematic_rounding(quotas: np.ndarray, seed: int) -> np.ndarray:
    """Rounds each quota down or up, right in expectation, and the total to within one row."""
    start = random.uniform(seed, "validation/rounding")
    edges = np.floor(np.concatenate([[0.0], np.cumsum(quotas)]) + start)
    # A cumulative sum can round by an ulp across an integer; no client gives more than its quota.
    return np.minimum(np.diff(edges), np.ceil(quotas)).astype(np.int64)
