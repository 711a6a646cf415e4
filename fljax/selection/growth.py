"""Populations that grow and leave: who has joined by a round, and is not gone yet.

    grown(start=0.1, over=100)                          from a tenth of the clients to all of them
    grown(0.01, over=200, shape="exponential")          likewise, by the same factor each round
    grown(1.0, lifetime=50)                             all at first, who stay 50 rounds on average

A data set holds all clients that there ever are. When each comes and goes is planned, from the seed
and its number; so a cohort is drawn among a round's members by a function of the round alone, which
no checkpoint has to keep. It costs what the cohort and the rounds so far cost (a search in each
round that brought clients), never what the population does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fljax.core import random
from fljax.core.sampler import Sampler
from fljax.core.settings import OPTIONS
from fljax.core.values import COUNT, FACTOR, Field, Interval, checked, whole_numbers

__all__ = ["NEVER", "SHAPES", "Membership", "among", "given", "growing", "grown"]

# The round in which clients leave that stay.
NEVER = 2**31 - 1
SHAPES = ("linear", "exponential")

_SHARE = Field(None, float, FACTOR)
_ROUNDS = Field(None, int, COUNT)
_LIFE = Field(None, float, Interval(1), optional=True)
_SHAPE = Field("linear", str, SHAPES)


class Membership(NamedTuple):
    """The times at which N clients join, and leave.

    Attributes:
      joins: int64[N] the first round of each client as a member.
      leaves: int64[N] the first round behind its last one; `NEVER` of clients that stay.

    Example:
      >>> from fljax.selection.growth import NEVER, Membership
      >>> membership = Membership(np.array([0, 0, 3]), np.array([2, NEVER, NEVER]))
      >>> [membership.at(round).tolist() for round in (0, 2, 3)]
      [[0, 1], [1], [1, 2]]
    """

    joins: np.ndarray
    leaves: np.ndarray

    def at(self, round: int) -> np.ndarray:
        """Returns the members of a round, in ascending order; reads the whole population."""
        return np.flatnonzero((self.joins <= round) & (round < self.leaves))

    def holds(self, clients: np.ndarray, rounds: np.ndarray | int) -> np.ndarray:
        """Returns whether clients are members in rounds; the arguments broadcast."""
        return (self.joins[clients] <= rounds) & (rounds < self.leaves[clients])


def given(joins: Sequence[int], leaves: Sequence[int] | None = None) -> Membership:
    """Returns the membership of clients whose first and last rounds are known.

    Args:
      joins: [N] the first round of each client.
      leaves: [N] the first round behind its last one; None where all stay.

    Raises:
      ValueError: If the lists differ in length, or a client joins before round 0 or leaves before
        it has joined.

    Example:
      >>> from fljax.selection.growth import given
      >>> given([0, 5], [5, 9]).at(5).tolist()
      [1]
    """
    first = whole_numbers("joins", joins)
    behind = np.full(len(first), NEVER) if leaves is None else whole_numbers("leaves", leaves)
    if len(first) != len(behind):
        raise ValueError(
            f"joins has {len(first)} clients and leaves {len(behind)}; give one round of each "
            "client in both."
        )
    for client in np.flatnonzero((first < 0) | (behind < first) | (behind > NEVER))[:1]:
        raise ValueError(
            f"Client {client} joins in round {first[client]} and leaves in round {behind[client]}; "
            f"rounds are 0 to {NEVER}, and nobody leaves before joining."
        )
    return Membership(first, behind)


def growing(
    num_clients: int,
    seed: int,
    *,
    start: float = 0.1,
    over: int = 100,
    shape: str = "linear",
    lifetime: float | None = None,
) -> Membership:
    """Plans a population that grows to its full size, whose members stay some time.

    Of N clients, N (start + (1 - start) r / over) have joined by round r, or N start^(1 - r / over)
    where growth is exponential, in a random order. How many rounds a member stays is geometric, so
    that one who has stayed long is as likely to go as a new one.

    Args:
      num_clients: N.
      seed: Draws the order, and how long clients stay.
      start: Share of the clients that are there in round 0; at least one is.
      over: Rounds until all have joined.
      shape: "linear" or "exponential".
      lifetime: Mean rounds that a member stays, at least 1; None for ever.

    Raises:
      ValueError: For numbers outside of their range.

    Example:
      >>> from fljax.selection.growth import growing
      >>> membership = growing(100, seed=0, start=0.2, over=40)
      >>> [len(membership.at(round)) for round in (0, 20, 40)]
      [20, 60, 100]
    """
    num_clients = checked("num_clients", num_clients, _ROUNDS)
    seed = checked("seed", seed, OPTIONS["seed"])
    start, over = checked("start", start, _SHARE), checked("over", over, _ROUNDS)
    shape, lifetime = checked("shape", shape, _SHAPE), checked("lifetime", lifetime, _LIFE)
    clients = np.arange(num_clients)
    order = np.argsort(random.bits(seed, "growth/order", clients), kind="stable")
    share = np.maximum((clients + 1) / num_clients, start)  # of which this one is the last
    passed = np.zeros(num_clients)
    if start < 1 and shape == "linear":
        passed = (share - start) / (1 - start)
    elif start < 1:
        passed = 1 - np.log(share) / np.log(start)
    joins = np.zeros(num_clients, np.int64)
    # the first client is there, and no rounding makes another one late
    joins[order[1:]] = np.ceil(over * passed[1:] - 1e-9)
    leaves = np.full(num_clients, NEVER)
    if lifetime is not None:
        leaves = np.minimum(joins + _lifetimes(clients, seed, lifetime), NEVER)
    return Membership(joins, leaves)


def _lifetimes(clients: np.ndarray, seed: int, mean: float) -> np.ndarray:
    """Returns int64, geometric numbers of rounds, at least 1."""
    if mean == 1:
        return np.ones(len(clients), np.int64)
    drawn = np.log(random.uniform(seed, "growth/lifetime", clients)) / np.log1p(-1 / mean)
    return 1 + np.minimum(drawn, NEVER).astype(np.int64)


def among(membership: Membership, clients_per_round: int, seed: int) -> Sampler:
    """Draws different members of each round, all cohorts being equally likely.

    Where a round has fewer members than a cohort, all of them take part; it may have none. The
    chance of each is 1 of the members, not of all clients: accountants of private runs that count
    on the latter would promise too much.

    Args:
      membership: Who is there when.
      clients_per_round: Size of a cohort.
      seed: Of the run.

    Raises:
      ValueError: If a cohort would be larger than the population.

    Example:
      >>> from fljax.selection.growth import among, given
      >>> sampler = among(given([0, 0, 2], [9, 1, 9]), clients_per_round=2, seed=0)
      >>> [sorted(sampler.select((), round)[0].tolist()) for round in (0, 1, 2, 9)]
      [[0, 1], [0], [0, 2], []]
    """
    num_clients = len(membership.joins)
    seed = checked("seed", seed, OPTIONS["seed"])
    clients_per_round = checked("clients_per_round", clients_per_round, _ROUNDS)
    if clients_per_round > num_clients:
        raise ValueError(
            f"clients_per_round = {clients_per_round}, but there are {num_clients} clients in all. "
            "Choose fewer."
        )
    # Sorted by the round of joining, and of equal ones by that of leaving, the last first: in any
    # round, the members of each such group come first in it.
    keys = _key(membership.joins, membership.leaves)
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    rounds, begins = np.unique(membership.joins[order], return_index=True)

    def select(state, round):
        joined = rounds[: np.searchsorted(rounds, round, "right")]
        first = begins[: len(joined)]
        ends = np.cumsum(np.searchsorted(keys, _key(joined, round)) - first)
        members = int(ends[-1]) if len(ends) else 0
        generator = random.generator(seed, "sampler/grown", round)
        ranks = generator.choice(members, min(clients_per_round, members), replace=False)
        group = np.searchsorted(ends, ranks, "right")
        before = np.concatenate([[0], ends])[group]
        return order[first[group] + ranks - before], state

    return Sampler(lambda: (), select, clients_per_round, separation=1)


def _key(joins: np.ndarray, leaves: np.ndarray | int) -> np.ndarray:
    """Returns int64 that order clients by joining, and those alike by leaving, the last first."""
    return (joins << 32) + (NEVER - leaves)


def grown(
    num_clients: int,
    clients_per_round: int,
    seed: int,
    start: float = 0.1,
    *,
    over: int = 100,
    shape: str = "linear",
    lifetime: float | None = None,
) -> Sampler:
    """Draws cohorts among the members of a population that grows, and leaves; for `sampler`.

    Args:
      num_clients: Size of the population, in all.
      clients_per_round: Size of a cohort.
      seed: Of the run, and of the population.
      start, over, shape, lifetime: As for `growing`.

    Raises:
      ValueError: For numbers outside of their range.

    Example:
      >>> from fljax.selection.growth import grown
      >>> sampler = grown(1000, 20, seed=0, start=0.01, over=50, shape="exponential")
      >>> [len(sampler.select((), round)[0]) for round in (0, 50)]
      [10, 20]
    """
    own = {"start": start, "over": over, "shape": shape, "lifetime": lifetime}
    return among(growing(num_clients, seed, **own), clients_per_round, seed)
