"""Samplers: which clients take part in a round.

A sampler is a record (init, select, observe). `select` depends on (seed, round) and the sampler's
state alone, which checkpoints keep. Where clients are chosen by what their training showed,
`observe` tells the state of the rounds before: of all of them ("immediate"), for which each round
waits, or of all but those under way ("delayed"), for which nothing waits. Samplers that look at
nothing of a client are here, all others in `fljax.selection`, with the names of all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from fljax.core import random
from fljax.core.settings import OPTIONS
from fljax.core.values import COUNT, FINITE, Field, checked, sequence, whole_numbers

__all__ = [
    "Sampler",
    "Selection",
    "clients_of",
    "keeping_apart",
    "poisson",
    "replay",
    "separated",
    "uniform",
]

_COUNT = Field(None, int, COUNT)
_WHOLE = Field(None, int, FINITE)
_MEAN = Field(None, float, FINITE)
# Rounds between one that was observed and the one that is selected: while a round is planned, one
# is dispatched and one is running.
DELAYS = {"delayed": 2, "immediate": 0}


class Selection(NamedTuple):
    """A cohort whose updates count unequally, as those of importance sampling do.

    Attributes:
      clients: int[n] clients in cohort order.
      scale: float[n] factors of what the server takes in of each update; the weights that their
        mean is divided by stay what they are.

    Example:
      >>> Selection(np.array([4, 7]), scale=np.array([0.5, 2.0])).clients.tolist()
      [4, 7]
    """

    clients: np.ndarray
    scale: np.ndarray


def clients_of(selected: Selection | np.ndarray) -> np.ndarray:
    """Returns int[n] clients of what a sampler selects.

    Example:
      >>> clients_of(Selection(np.array([4, 7]), np.ones(2))).tolist()
      [4, 7]
    """
    return np.asarray(selected.clients if isinstance(selected, Selection) else selected)


class Sampler(NamedTuple):
    """A rule that draws cohorts.

    Attributes:
      init: () -> state, a pytree of arrays.
      select: (state, round) -> (int clients in cohort order, state'); with `has_scale`, a Selection
        in the place of the clients.
      max_cohort: Largest cohort that `select` can return.
      observe: (state, round, statistics) -> state', called once a round and in their order, before
        the `select` of round + 1 + delay. `statistics` is {"client": int32[n], name: [n]}, the
        clients whose work has ended, in cohort order, and what the last pass of the algorithm
        reports of each: "loss" and "weight" are sums over the targets it trained on, "nonfinite",
        "lost" and, behind a pass that selects, "unselected" say of which nothing was kept, and all
        else of them is 0 then.
      feedback: "none"; "delayed", by two rounds; or "immediate", for which the devices wait.
      separation: Rounds from one participation of a client to its next, at least, as `select`
        promises: with 1 a client takes part once in a round; 0 promises nothing. Private runs
        count on it, and end with an error where a sampler of one's own breaks it.
      has_scale: Whether `select` returns a Selection.
      is_uniform: Whether cohorts have a fixed size and all are equally likely; then others who are
        online take the places of those who are not, and it stays so.

    Example:
      Clients whose loss was high are drawn more often (the delay is 2 rounds):

      >>> from fljax.core.sampler import Sampler
      >>> def select(losses, round):
      ...     draw = np.random.default_rng((seed, round))
      ...     return draw.choice(100, 10, replace=False, p=losses / losses.sum()), losses
      >>> def observe(losses, round, statistics):
      ...     losses, told = losses.copy(), statistics["weight"] > 0
      ...     loss = statistics["loss"][told] / statistics["weight"][told]
      ...     losses[statistics["client"][told]] = loss
      ...     return losses
      >>> sampler = Sampler(lambda: np.ones(100), select, 10, observe, "delayed")
    """

    init: Callable[[], Any]
    select: Callable[[Any, int], tuple[np.ndarray, Any]]
    max_cohort: int
    observe: Callable[[Any, int, Any], Any] = lambda state, round, statistics: state
    feedback: str = "none"
    separation: int = 0
    has_scale: bool = False
    is_uniform: bool = False


def keeping_apart(sampler: Sampler, num_clients: int) -> Sampler:
    """Returns a sampler that draws as another one does, and fails where that breaks its promise.

    Its state is that of the other one and int32[N], the round of each client's last participation.

    Args:
      sampler: What promises a `separation`.
      num_clients: N, of the population.

    Raises:
      ValueError: As it selects, if a client takes part earlier than `separation` rounds after its
        last turn; guarantees of privacy that count on it would be void.

    Example:
      >>> from fljax.core.sampler import Sampler, keeping_apart
      >>> twice = Sampler(lambda: (), lambda state, round: (np.array([7]), state), 1, separation=5)
      >>> careful = keeping_apart(twice, num_clients=10)
      >>> _, state = careful.select(careful.init(), 0)
      >>> try:
      ...     careful.select(state, 1)
      ... except ValueError as error:
      ...     print(str(error).partition(". ")[0])
      The sampler promises separation = 5, but client 7 takes part in round 0 and again in round 1
    """

    def init():
        return sampler.init(), np.full(num_clients, -sampler.separation, np.int32)

    def select(state, round):
        inner, last = state
        selected, inner = sampler.select(inner, round)
        clients = clients_of(selected)
        known = clients[(clients >= 0) & (clients < num_clients)]  # others are refused elsewhere
        found, times = np.unique(known, return_counts=True)
        early = (round - last[found] < sampler.separation) | (times > 1)
        if early.any():
            client = found[early][0]
            before = round if times[early][0] > 1 else last[client]
            raise ValueError(
                f"The sampler promises separation = {sampler.separation}, but client {client} "
                f"takes part in round {before} and again in round {round}. Say a separation that "
                "it keeps, or draw clients in keeping with it."
            )
        last = last.copy()
        last[found] = round
        return selected, (inner, last)

    def observe(state, round, statistics):
        inner, last = state
        return sampler.observe(inner, round, statistics), last

    return sampler._replace(init=init, select=select, observe=observe)


def uniform(num_clients: int, clients_per_round: int, seed: int) -> Sampler:
    """Draws a fixed number of different clients, all cohorts being equally likely.

    Raises:
      ValueError: If the population is smaller than the cohort.

    Example:
      >>> sampler = uniform(num_clients=100, clients_per_round=10, seed=0)
      >>> clients, _ = sampler.select(sampler.init(), 0)
      >>> len(set(clients.tolist()))
      10
    """
    num_clients, clients_per_round, seed = checked_numbers(num_clients, clients_per_round, seed)

    def select(state, round):
        generator = random.generator(seed, "sampler/uniform", round)
        return generator.choice(num_clients, clients_per_round, replace=False), state

    return Sampler(lambda: (), select, clients_per_round, separation=1, is_uniform=True)


def poisson(num_clients: int, clients_per_round: int, seed: int) -> Sampler:
    """Draws each client independently, `clients_per_round` of them on average.

    A cohort may be empty. Its size stays below the mean plus ten standard deviations; a larger
    draw, rarer than one in 10^20, is cut.

    Example:
      >>> sampler = poisson(num_clients=1000, clients_per_round=10, seed=0)
      >>> sizes = [len(sampler.select((), round)[0]) for round in range(200)]
      >>> bool(abs(np.mean(sizes) - 10) < 1), sampler.max_cohort
      (True, 51)
    """
    num_clients, clients_per_round, seed = checked_numbers(
        num_clients, clients_per_round, seed, _MEAN
    )
    rate = clients_per_round / num_clients
    largest = _largest(num_clients, rate)

    def select(state, round):
        generator = random.generator(seed, "sampler/poisson", round)
        return _drawn(generator, num_clients, rate, largest), state

    return Sampler(lambda: (), select, largest, separation=1)


def separated(
    num_clients: int, clients_per_round: float, seed: int, separation: int | None = None
) -> Sampler:
    """Draws clients so that many rounds lie between two participations of the same one.

    The population is divided at random into as many groups, of equal size but for one client, as
    `separation` says; they take turns. Within its group each client is drawn independently, with
    the probability that makes a cohort of `clients_per_round` on average; where that is 1, a whole
    group is a cohort and `separation` rounds are one pass through the population, in the same order
    each time. So cohorts are drawn in Choquette-Choo et al. (arXiv:2306.08153), for noise that is
    correlated over rounds. The state holds the round of each group's last turn.

    Args:
      num_clients: Size of the population.
      clients_per_round: Mean size of a cohort; those of whole passes may be smaller.
      seed: Of the run.
      separation: Rounds from one participation of a client to its next, at least; None for a whole
        pass through the population.

    Raises:
      ValueError: If the separation is longer than a pass.

    Example:
      >>> sampler = separated(num_clients=100, clients_per_round=10, seed=0, separation=5)
      >>> state, found = sampler.init(), []
      >>> for round in range(6):
      ...     clients, state = sampler.select(state, round)
      ...     found.append(set(clients.tolist()))
      >>> set.union(*found[:5]) & found[5] == found[0] & found[5]
      True
    """
    num_clients, clients_per_round, seed = checked_numbers(
        num_clients, clients_per_round, seed, _MEAN
    )
    longest = math.ceil(num_clients / clients_per_round - 1e-9)
    separation = checked("separation", longest if separation is None else separation, _COUNT)
    if separation > longest:
        raise ValueError(
            f"separation = {separation}, but {num_clients} clients, {clients_per_round:g} of them "
            f"in a round, have all taken part after {longest} rounds. Choose {longest} or less."
        )
    order = random.generator(seed, "sampler/separated/groups").permutation(num_clients)
    groups = [order[number::separation] for number in range(separation)]
    rate = min(1.0, clients_per_round * separation / num_clients)
    largest = _largest(len(groups[0]), rate)

    def select(last, round):
        generator = random.generator(seed, "sampler/separated", round)
        turn = round % separation
        if round - last[turn] < separation:
            raise RuntimeError(
                f"Clients of group {turn} would take part in rounds {last[turn]} and {round}, but "
                f"separation = {separation}. The sampler's state is not the one before this round."
            )
        last = last.copy()
        last[turn] = round
        return groups[turn][_drawn(generator, len(groups[turn]), rate, largest)], last

    never = np.full(separation, -separation, np.int64)
    return Sampler(lambda: never, select, largest, separation=separation)


def _largest(size: int, rate: float) -> int:
    """Returns the mean of a binomial plus ten standard deviations: 1 in 10^20 draws is larger."""
    return min(size, int(size * rate + 10 * (size * rate) ** 0.5 + 10))


def _drawn(generator: np.random.Generator, size: int, rate: float, largest: int) -> np.ndarray:
    """Returns which of `size` members are drawn, each independently.

    Their number comes first, then they: cost follows the cohort, not the population.
    """
    count = min(generator.binomial(size, rate), largest)
    return generator.choice(size, count, replace=False)


def replay(cohorts: Sequence[Sequence[int]], num_clients: int) -> Sampler:
    """Replays given cohorts, round after round, starting again at the end of the list.

    Raises:
      ValueError: If a cohort names a client that does not exist.

    Example:
      >>> sampler = replay([[0, 2], [1]], num_clients=3)
      >>> [sampler.select((), round)[0].tolist() for round in range(3)]
      [[0, 2], [1], [0, 2]]
    """
    num_clients = checked("num_clients", num_clients, _COUNT)
    fixed = [
        whole_numbers(f"cohorts[{place}]", cohort)
        for place, cohort in enumerate(sequence("cohorts", cohorts, "a list of cohorts"))
    ]
    if not any(len(cohort) for cohort in fixed):
        raise ValueError(
            "cohorts is an empty list, or a list of empty ones; give one list of client numbers a "
            "round."
        )
    for round, cohort in enumerate(fixed):
        wrong = cohort[(cohort < 0) | (cohort >= num_clients)]
        if len(wrong):
            raise ValueError(
                f"cohorts[{round}] names client {wrong[0]}, but the population has clients 0 to "
                f"{num_clients - 1}."
            )
    return Sampler(
        lambda: (),
        lambda state, round: (fixed[round % len(fixed)], state),
        max(len(cohort) for cohort in fixed),
    )


def checked_numbers(
    num_clients: int, clients_per_round: float, seed: int, field: Field = _WHOLE
) -> tuple[int, Any, int]:
    """Returns the numbers that each sampler needs.

    Args:
      num_clients: Size of the population.
      clients_per_round: Size of a cohort, or its mean.
      seed: Of the run.
      field: What the size of a cohort may be; a whole number, unless it is a mean.

    Raises:
      ValueError: If one is out of range, or the population smaller than the cohort.
    """
    num_clients = checked("num_clients", num_clients, _COUNT)
    seed = checked("seed", seed, OPTIONS["seed"])
    clients_per_round = checked("clients_per_round", clients_per_round, field)
    if not 0 < clients_per_round <= num_clients:
        raise ValueError(
            f"clients_per_round = {clients_per_round:g}, but the population has {num_clients} "
            f"clients. Choose a number from 1 to {num_clients}."
        )
    return num_clients, clients_per_round, seed
