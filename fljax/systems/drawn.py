"""Draws which entry of a list, or which kind, each client's device is: by (seed, client) alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fljax.core import random
from fljax.core.values import Field, checked
from fljax.systems.devices import Devices


def chosen(devices: Devices, entries: np.ndarray) -> Devices:
    """Returns the devices of a list that clients have.

    Args:
      devices: L devices.
      entries: int64[N] which of them each client has.

    Example:
      >>> from fljax.systems.drawn import chosen
      >>> from fljax.systems.profiles import given
      >>> chosen(given(3, step_seconds=[1, 2, 3]), np.array([2, 2])).step_seconds.tolist()
      [3.0, 3.0]
    """
    arrays = {
        name: value[entries]
        for name, value in devices._asdict().items()
        if isinstance(value, np.ndarray)
    }
    return devices._replace(**arrays)


def entries(num_clients: int, seed: int, count: int, in_turn: bool) -> np.ndarray:
    """Returns int64[N] which of `count` entries of a list each client has.

    Args:
      num_clients: N.
      seed: Of the draws.
      count: Entries of the list.
      in_turn: Whether client i has entry i, and the list starts again at its end; otherwise each
        client's is drawn, all with one chance.

    Example:
      >>> from fljax.systems.drawn import entries
      >>> entries(5, seed=0, count=3, in_turn=True).tolist()
      [0, 1, 2, 0, 1]
    """
    clients = np.arange(num_clients)
    if checked("in_turn", in_turn, Field(True, bool)):
        return clients % count
    return (random.uniform(seed, "systems/entries", clients) * count).astype(np.int64)


def by_shares(num_clients: int, seed: int, shares: Sequence[float]) -> np.ndarray:
    """Returns int64[N] which of K kinds each client's device is of, drawn by their shares.

    Args:
      num_clients: N.
      seed: Of the draws.
      shares: K numbers in proportion to the chances.

    Example:
      >>> from fljax.systems.drawn import by_shares
      >>> np.bincount(by_shares(10_000, 0, [1, 0, 3])).round(-2).tolist()
      [2500, 0, 7500]
    """
    edges = np.cumsum(shares) / np.sum(shares)
    drawn = random.uniform(seed, "systems/kind", np.arange(num_clients))
    return np.asarray(np.searchsorted(edges[:-1], drawn, side="right"))
