"""Attackers: which clients are hostile, for good or anew in each round."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import jax
import jax.numpy as jnp

from fljax.core.permutations import keyed_permutation, shuffled
from fljax.core.transforms import Attackers

__all__ = ["between", "by_client", "by_round", "by_share", "without"]


def by_client(clients: Collection[int]) -> Attackers:
    """Names hostile clients by their numbers.

    Example:
      >>> clients = jnp.array([5, 1, -1])
      >>> by_client([2, 5]).among(clients, clients >= 0, 0, None).tolist()
      [True, False, False]
    """
    named = jnp.asarray(sorted(clients), jnp.int32)
    return Attackers(lambda clients, present, round, key: present & jnp.isin(clients, named))


def by_share(share: Any, num_clients: int) -> Attackers:
    """Makes a share of the population hostile for good, chosen by the seed: round(share x N).

    Args:
      share: From 0 to 1; may be traced.
      num_clients: Size of the population, N.

    Example:
      >>> everybody = jnp.arange(50)
      >>> found = by_share(0.2, 50).among(everybody, everybody >= 0, 3, jax.random.key(1))
      >>> int(found.sum())
      10
    """

    def among(clients, present, round, key):
        place = keyed_permutation(key, jnp.maximum(clients, 0), num_clients)
        return present & (place < jnp.round(jnp.asarray(share) * num_clients))

    return Attackers(among)


def by_round(share: Any) -> Attackers:
    """Makes a share of each cohort hostile, drawn anew in each round: round(share x cohort).

    Args:
      share: From 0 to 1; may be traced.

    Example:
      >>> clients = jnp.arange(10)
      >>> found = by_round(0.3).among(clients, clients >= 0, 3, jax.random.key(1))
      >>> int(found.sum())
      3
    """

    def among(clients, present, round, key):
        rank = jnp.argsort(shuffled(jax.random.fold_in(key, round), present))
        return present & (rank < jnp.round(jnp.asarray(share) * present.sum()))

    return Attackers(among)


def between(attackers: Attackers, first: int, last: int | None = None) -> Attackers:
    """Lets attackers attack in some rounds only, and be honest in the others.

    Args:
      attackers: Who.
      first: First round, from 0.
      last: Last round; None for no end.

    Example:
      >>> once, one = between(by_client([2]), 7, 7), jnp.array([2])
      >>> [bool(once.among(one, one >= 0, round, None)[0]) for round in (6, 7, 8)]
      [False, True, False]
    """

    def among(clients, present, round, key):
        active = round >= first
        if last is not None:
            active &= round <= last
        return attackers.among(clients, present, round, key) & active

    return Attackers(among)


def without(attackers: Attackers, client: int) -> Attackers:
    """Keeps one client honest: the server's own.

    Example:
      >>> clients = jnp.array([2, 5])
      >>> without(by_client([2, 5]), 5).among(clients, clients >= 0, 0, None).tolist()
      [True, False]
    """

    def among(clients, present, round, key):
        return attackers.among(clients, present & (clients != client), round, key)

    return Attackers(among)
