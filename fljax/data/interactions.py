"""Builds a federated dataset for recommendation of pairs of users and items."""

from __future__ import annotations

from typing import Any

import numpy as np

from fljax.core.values import COUNT, NON_NEGATIVE, Field, checked
from fljax.data.arrays import from_arrays
from fljax.data.dataset import FederatedDataset
from fljax.data.ids import as_ids
from fljax.data.tables import as_array


def from_interactions(
    users: Any,
    items: Any,
    times: Any = None,
    *,
    held_out: int = 1,
    longest: int | None = None,
    name: str = "interactions",
    **options: Any,
) -> FederatedDataset:
    """Builds a data set in which each user is a client, for `fljax.tasks.recommendation`.

    A user has one training row, whose x and y are the items chosen first, and one test row, whose x
    are the same and whose y are the `held_out` chosen last. Users who chose `held_out` items or
    fewer have no test row. What a user chose again counts once, at the first time.

    Args:
      users: [pairs] integers or texts, kept as client ids.
      items: [pairs] integers or texts; they are numbered from 1 in their sorted order.
      times: [pairs] numbers that order the pairs of a user; their order here if None.
      held_out: How many items of each user are kept for testing.
      longest: How many training items a user has at most, the last ones; all if None.
      name: For logs and records.
      **options: Others of `from_arrays`, such as `held_out_fraction` for users who never train.

    Returns:
      The dataset; `num_classes` is the number of items plus one.

    Raises:
      ValueError: If lengths or types do not fit, or no user is left.

    Example:
      >>> users, items = ["ann", "ann", "ann", "bob", "bob"], ["tea", "jam", "egg", "jam", "tea"]
      >>> dataset = data.from_interactions(users, items)
      >>> dataset.train.examples.take(np.arange(2))["x"].tolist(), dataset.num_classes
      ([[3, 2], [2, 0]], 4)
    """
    held_out = checked("held_out", held_out, Field(1, int, NON_NEGATIVE))
    longest = checked("longest", longest, Field(None, int, COUNT, optional=True))
    users, numbers, num_items = _pairs(users, items, times)
    ids, starts, sizes = np.unique(users, return_index=True, return_counts=True)
    ends = starts + sizes
    cuts = np.where(sizes > held_out, ends - held_out, ends)
    firsts = starts if longest is None else np.maximum(starts, cuts - longest)
    width = int(max((cuts - firsts).max(), held_out))
    x = _filled(numbers, firsts, cuts, width)
    tested = cuts < ends
    test = {}
    if tested.any():
        y_test = _filled(numbers, cuts[tested], ends[tested], width)
        test = {"x_test": x[tested], "y_test": y_test, "test_client_ids": ids[tested]}
    return from_arrays(
        x,
        x,
        client_ids=ids,
        kind="next_token",
        num_classes=num_items + 1,
        name=name,
        **test,
        **options,
    )


def _pairs(users: Any, items: Any, times: Any) -> tuple[np.ndarray, np.ndarray, int]:
    """Returns (users, numbers of their items, how many items there are), by user and time."""
    items = as_array(items, "items")
    users = as_ids(users, len(items), "users")
    if not len(users):
        raise ValueError("users is empty: give a user and an item for each pair")
    items = as_ids(items, len(users), "items")
    names, numbers = np.unique(items, return_inverse=True)
    times = np.arange(len(users)) if times is None else as_array(times, "times")
    if times.shape != users.shape:
        raise ValueError(f"users has {len(users)} rows, but times is of shape {list(times.shape)}")
    order = np.lexsort((np.arange(len(users)), times, users))
    users, numbers = users[order], numbers[order] + 1
    # a pair that comes again is no further choice
    again = np.lexsort((np.arange(len(users)), numbers, users))
    same = (users[again][1:] == users[again][:-1]) & (numbers[again][1:] == numbers[again][:-1])
    kept = np.ones(len(users), bool)
    kept[again[1:][same]] = False
    return users[kept], numbers[kept], len(names)


def _filled(numbers: np.ndarray, starts: np.ndarray, ends: np.ndarray, width: int) -> np.ndarray:
    """Returns int32[rows, width], numbers[start:end] of each row, filled up with 0."""
    places = starts[:, None] + np.arange(width)
    held = places < ends[:, None]
    return np.where(held, numbers[np.minimum(places, len(numbers) - 1)], 0).astype(np.int32)
