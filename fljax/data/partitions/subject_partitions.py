"""Divides subjects, such as patients, among clients; their rows go with them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fljax.data.ownership import Partition, partition_by_owner
from fljax.data.partitions.partition_names import named_partition


def partition_of_subjects(
    text: str,
    labels: np.ndarray | int,
    subjects: np.ndarray,
    num_clients: int | None,
    seed: int,
    options: Mapping[str, Any],
) -> Partition:
    """Divides subjects among clients as a partitioner divides rows; their rows go with them.

    Args:
      text: Names the partitioner.
      labels: int[rows], of which a subject has the most frequent one; or the number of rows.
      subjects: int[rows] number of each row's subject.
      num_clients, seed: As for `make_partition`.
      options: Likewise; what they count, such as `min_partition_size`, is subjects.

    Raises:
      ValueError: If rows of a subject would have to be left out.
    """
    if "rows_per_client" in options:
        raise ValueError(
            f"rows_per_client = {options['rows_per_client']} would part the rows of a subject, and "
            "split_by keeps them together: leave one of them out"
        )
    count = int(subjects.max()) + 1
    of_subject = count if np.ndim(labels) == 0 else _most_frequent(labels, subjects, count)
    chosen = named_partition(text, of_subject, num_clients, seed, None, options)
    owner = np.full(count, chosen.num_clients)
    owner[chosen.all_rows()] = chosen.owners()
    everyone = partition_by_owner(owner[subjects], chosen.num_clients + 1)
    return everyone.subset(np.arange(chosen.num_clients))


def _most_frequent(labels: np.ndarray, subjects: np.ndarray, count: int) -> np.ndarray:
    """Returns int64[subjects] the label of most rows of each, the smallest of equals."""
    classes, number = np.unique(labels, return_inverse=True)
    cells = subjects.astype(np.int64) * len(classes) + number
    found, times = np.unique(cells, return_counts=True)
    subject, label = np.divmod(found, len(classes))
    order = np.lexsort((label, -times, subject))
    first = order[np.searchsorted(subject[order], np.arange(count))]
    return classes[label[first]].astype(np.int64)
