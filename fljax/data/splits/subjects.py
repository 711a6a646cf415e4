"""Keeps rows of one subject together, such as all slices of a patient, however rows are divided.

A subject has one client, and its rows are all trained on, all validated on, or all tested on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fljax.core import random
from fljax.data.dataset import Split
from fljax.data.ids import as_ids, places_among, some_of
from fljax.data.ownership import Partition, offsets_of


def numbered_subjects(
    subjects: np.ndarray | None, of_test: np.ndarray | None, pools: bool
) -> np.ndarray | None:
    """Returns int[rows], a number for the subject of each training row; of all rows if pooled.

    Args:
      subjects: [rows] as they were given, or None.
      of_test: [test rows], or None.
      pools: Whether test rows are divided among clients as well, behind the training rows.

    Raises:
      ValueError: If a subject stands in both sets, which are not pooled, or one set has none.
    """
    if subjects is None:
        if of_test is not None:
            raise ValueError("test_split_by was given without split_by of the training rows")
        return None
    if pools:
        if of_test is None:
            raise ValueError(
                "own_test_fraction pools training and test rows, and split_by says the subjects of "
                "training rows alone: give test_split_by"
            )
        places_among(subjects[:1], of_test)  # refuses ids of unlike types
        subjects = np.concatenate([subjects, of_test])
    elif of_test is not None:
        both = np.unique(of_test)[places_among(np.unique(subjects), np.unique(of_test)) >= 0]
        if both.size:
            raise ValueError(
                f"rows of {some_of(both)} are in the training and in the test set, and split_by "
                "keeps those of one subject together: take them out of one"
            )
    return np.unique(subjects, return_inverse=True)[1]


def read_subjects(values: Any, rows: int, name: str) -> np.ndarray | None:
    """Returns [rows] subjects as whole numbers or texts; refuses anything else."""
    return None if values is None else as_ids(values, rows, name)


def divided_by_subject(
    partition: Partition,
    subjects: np.ndarray,
    fraction: float,
    seed: int,
    purpose: str,
    least: int,
) -> tuple[Partition, Partition]:
    """Returns (the rest, about this share of each client's rows), whole subjects each.

    Subjects of a client are taken in a random order, as long as that brings the number of rows
    nearer to fraction x n; one subject at least stays.

    Args:
      partition: Over N clients, of which each has all rows of its subjects.
      subjects: int[rows] number of each row's subject.
      fraction: Of each client's rows, in (0, 1).
      seed: Chooses the subjects.
      purpose: Of the stream of random numbers.
      least: Subjects that are taken of each client with several, 0 or 1.
    """
    rows, owner = partition.all_rows(), partition.owners()
    own = subjects[rows].astype(np.int64)
    found, which, sizes = np.unique(own, return_inverse=True, return_counts=True)
    client = np.empty(len(found), np.int64)
    client[which] = owner
    order = np.lexsort((random.bits(seed, purpose, found), client))
    counts = np.bincount(client, minlength=partition.num_clients)
    first = np.cumsum(counts) - counts
    ends = np.cumsum(sizes[order])
    before = np.concatenate([[0], ends])[first[client[order]].clip(0)]
    ends = ends - before
    rank = np.arange(len(found)) - first[client[order]]
    wanted = fraction * partition.sizes[client[order]]
    nearer = ends - sizes[order] / 2 < wanted
    taken = np.empty(len(found), bool)
    taken[order] = ((rank < least) | nearer) & (rank < counts[client[order]] - 1)
    goes = taken[which]
    gone = np.bincount(owner[goes], minlength=partition.num_clients)
    return (
        Partition(offsets_of(partition.sizes - gone), rows[~goes]),
        Partition(offsets_of(gone), rows[goes]),
    )


def check_together(subjects: np.ndarray, sides: Mapping[str, Split], name: str) -> None:
    """Refuses subjects whose rows belong to several clients or splits.

    Args:
      subjects: int[rows] number of each row's subject.
      sides: {role: a split of these rows that clients own, or nobody}.
      name: Of the data set.

    Raises:
      ValueError: If a subject has rows of two sides.
    """
    place = np.full(int(subjects.max(initial=-1)) + 1, -1, np.int64)
    for number, split in enumerate(sides.values()):
        rows = split.rows()
        owners = np.zeros(len(rows), np.int64)
        if split.partition is not None:
            owners = split.partition.owners()
        of_row = owners * len(sides) + number
        own = subjects[rows]
        fresh = place[own] < 0
        place[own[fresh]] = of_row[fresh]
        parted = np.flatnonzero(place[own] != of_row)
        if parted.size:
            raise ValueError(
                f"the subject of row {rows[parted[0]]} of {name!r} has rows of several clients or "
                f"splits ({', '.join(sides)}), and split_by keeps those of a subject together: let "
                "ids of clients follow from those of subjects, or give others"
            )
