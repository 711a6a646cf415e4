"""Draws in proportion to weights: with and without replacement, and with exact inclusion.

All of them read the running sum of the weights, so that a draw costs what it returns and not what
the population does. Uniforms come from counters (`fljax.core.random`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

# Batches of `distinct` before it goes through all weights; more are rare unless few have it all.
_BATCHES = 8


def places(cumulative: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Returns the entries in whose share of a running sum points lie.

    Args:
      cumulative: float64[N] running sum of weights, none of them negative and one positive.
      points: float64[...] in (0, 1), as shares of the sum.

    Returns:
      int64[...] entries; those of weight 0 are none.

    Example:
      >>> places(np.array([1.0, 1.0, 4.0]), np.array([0.1, 0.3, 0.9])).tolist()
      [0, 2, 2]
    """
    found = np.searchsorted(cumulative, points * cumulative[-1], side="right")
    # a point may be rounded up to the whole sum
    return np.minimum(found, np.searchsorted(cumulative, cumulative[-1], side="left"))


def distinct(
    weights: np.ndarray,
    cumulative: np.ndarray,
    count: int,
    uniforms: Callable[[int, np.ndarray], np.ndarray],
    excluded: np.ndarray | None = None,
) -> np.ndarray:
    """Draws different entries one after another, by their weights among those that are left.

    Repeats of a draw with replacement are passed over, which is the same; where few entries have
    nearly all the weight, the rest comes from exponential clocks (Efraimidis and Spirakis 2006),
    which is the same again and goes through all entries once.

    Args:
      weights: float64[N], none of them negative and one positive.
      cumulative: float64[N] their running sum.
      count: How many are drawn; as many as have a weight, if these are fewer.
      uniforms: (batch, int64[n] numbers) -> float64[n] uniforms.
      excluded: bool[N] entries that are not drawn, or None.

    Returns:
      int64[count] entries in the order in which they were drawn.

    Example:
      >>> from fljax.core import random
      >>> def uniforms(batch, numbers):
      ...     return random.uniform(0, "example", batch, numbers)
      >>> weights = np.array([1.0, 2.0, 0.0, 4.0])
      >>> sorted(distinct(weights, np.cumsum(weights), 3, uniforms).tolist())
      [0, 1, 3]
    """
    found = np.zeros(0, np.int64)
    for batch in range(_BATCHES):
        more = places(cumulative, uniforms(batch, np.arange(count - len(found))))
        if excluded is not None:
            more = more[~excluded[more]]
        _, first = np.unique(merged := np.concatenate([found, more]), return_index=True)
        found = merged[np.sort(first)]
        if len(found) == count:
            return found
    weights = weights.copy()
    weights[found] = 0
    if excluded is not None:
        weights[excluded] = 0
    left = np.flatnonzero(weights > 0)
    clocks = -np.log(uniforms(_BATCHES, left)) / weights[left]
    soonest = smallest(clocks, count - len(found))
    return np.concatenate([found, left[soonest]])


def smallest(values: np.ndarray, count: int) -> np.ndarray:
    """Returns the places of the smallest values, ascending; of equal ones the first.

    Example:
      >>> smallest(np.array([3.0, 1.0, 2.0, 1.0]), 3).tolist()
      [1, 3, 2]
    """
    if count <= 0:
        return np.zeros(0, np.int64)
    if count >= len(values):
        return np.argsort(values, kind="stable")
    bound = np.partition(values, count - 1)[count - 1]
    below = np.flatnonzero(values < bound)
    chosen = np.append(below, np.flatnonzero(values == bound)[: count - len(below)])
    return chosen[np.lexsort((chosen, values[chosen]))]


def inclusion(weights: np.ndarray, count: int) -> np.ndarray:
    """Returns the probabilities, proportional to weights, with which `count` entries are drawn.

    They sum to `count`. Where proportion would ask for more than 1, an entry is certain, and the
    others share what is left.

    Args:
      weights: float64[N], none negative, at least `count` of them positive.
      count: n.

    Returns:
      float64[N] in [0, 1].

    Example:
      >>> inclusion(np.array([8.0, 1.0, 2.0, 1.0]), 2).tolist()
      [1.0, 0.25, 0.5, 0.25]
    """
    order = np.argsort(-weights, kind="stable")
    largest = weights[order[:count]]
    tails = weights.sum() - np.concatenate([[0.0], np.cumsum(largest)])[:-1]
    over = largest * (count - np.arange(len(largest))) >= tails
    certain = len(over) if over.all() else int(np.argmin(over))
    probabilities = np.zeros(len(weights))
    rest = order[certain:]
    if count > certain:
        share = weights[rest] * ((count - certain) / weights[rest].sum())
        probabilities[rest] = np.minimum(share, 1)  # to which it may be rounded up
    probabilities[order[:certain]] = 1
    return probabilities


class Strata(NamedTuple):
    """Entries in a row, cut into strata of probability 1.

    Attributes:
      cumulative: float64[N] running sum of the probabilities, which ends at n.
      across: int64[n] the entry that lies across the beginning of each stratum; -1 for none.
      within: float64[n] how much of its probability lies in that stratum.
      chance: float64[n] of drawing it there, if the stratum before has not.
    """

    cumulative: np.ndarray
    across: np.ndarray
    within: np.ndarray
    chance: np.ndarray


def strata(probabilities: np.ndarray, count: int) -> Strata:
    """Cuts entries, in the order in which they stand, into strata; see `one_of_each`.

    Args:
      probabilities: float64[N], each above 0 and below 1; their sum is `count`, up to rounding.
      count: n, at least 1.
    """
    cumulative = np.cumsum(probabilities)
    cumulative *= count / cumulative[-1]
    begins = np.arange(count)
    across = np.searchsorted(cumulative, begins, side="right")
    before = begins - np.concatenate([[0.0], cumulative])[across]
    within = cumulative[across] - begins
    cut = before > 0
    within = np.where(cut, within, 0.0)
    chance = np.divide(within, 1 - before, out=np.zeros(count), where=cut)
    return Strata(cumulative, np.where(cut, across, -1), within, chance)


def one_of_each(cut: Strata, picks: np.ndarray, turns: np.ndarray) -> np.ndarray:
    """Draws one entry from each stratum: different ones, each with exactly its probability.

    Deville 1998 ("Une nouvelle (encore une!) methode de tirage a probabilites inegales"): an entry
    that lies in two strata is drawn from the second with the chance that is left to it, and never
    if the first has drawn it.

    Args:
      cut: The strata.
      picks: float64[..., n] uniforms, which choose among the other entries of a stratum.
      turns: float64[..., n] uniforms, which say whether it is the one from the stratum before.

    Returns:
      int64[..., n] entries, one a stratum.

    Example:
      >>> cut = strata(np.array([0.5, 0.75, 0.75]), 2)
      >>> cut.across.tolist(), cut.chance.tolist()
      ([-1, 1], [0.0, 0.5])
      >>> one_of_each(cut, np.array([[0.9, 0.5], [0.2, 0.5]]), np.array([[0.1, 0.3]] * 2)).tolist()
      [[1, 2], [0, 1]]
    """
    count = len(cut.across)
    begins = np.arange(count)
    others = places(cut.cumulative, (begins + cut.within + picks * (1 - cut.within)) / count)
    # a stratum picks the one that goes on, if it picks among the others; it does so if it has no
    # turn for the one before, or if that one is drawn: of these strata, the last decides
    goes_on = others == np.append(cut.across[1:], -1)
    no_turn = turns >= cut.chance
    latest = np.maximum.accumulate(np.where(no_turn, begins, -1), axis=-1)
    broken = np.maximum.accumulate(np.where(goes_on, -1, begins), axis=-1)
    drawn_before = np.zeros(others.shape, bool)
    drawn_before[..., 1:] = (latest > broken)[..., :-1]
    return np.where(no_turn | drawn_before, others, cut.across)
