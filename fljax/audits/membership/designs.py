"""Designs: which targets each shadow model is trained on.

A design is balanced two ways, so that neither a target's shadow models nor a model's rows tell
anything by their number: each target is in half of the models, and each model has half of the
targets. Targets are paired at random. Of each pair, one is in a model and the other is not; which,
half of the models drawn at random say. So pairs are opposites, and models share no more than chance
has them share. (In the designs of Carlini et al. 2021, arXiv:2112.03570, each target is in half of
the models, and models have half of the targets on average.)

Where models are attacked in turn with the help of the others, balance tells: a member has one
shadow model less with it than without it, the mean of fewer is farther off, and so an attack that
knows nothing is below chance, at an AUC of 0.48 with eleven shadow models. `coins` are free of it
from a dozen models on. Of fewer, so many columns are tossed again that they are nearly balanced: of
nine models the AUC is 0.485, of five 0.45.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fljax.core import random
from fljax.core.values import COUNT, SEED, Field, Interval, checked

_COUNT = Field(None, int, COUNT)
_SEED = Field(None, int, SEED)
_PURPOSE, _COINS = "audits/membership/design", "audits/membership/coins"


def halves(num_models: int, num_targets: int, seed: int) -> np.ndarray:
    """Draws which targets each of several models is trained on, half of them each.

    Args:
      num_models: M.
      num_targets: T.
      seed: Of the draw.

    Returns:
      bool[M, T]: each target is in M/2 models, and each model has T/2 targets; where a number is
      odd, the next above or below.

    Raises:
      ValueError: For numbers below 1, or a seed that is none.

    Example:
      >>> members = halves(4, 6, seed=0)
      >>> members.sum(0).tolist(), members.sum(1).tolist()
      ([2, 2, 2, 2, 2, 2], [3, 3, 3, 3])
    """
    num_targets = checked("num_targets", num_targets, _COUNT)
    return within(num_models, np.zeros(num_targets, np.int64), seed)


def coins(num_models: int, units: Any, seed: int) -> np.ndarray:
    """Draws by fair coins which targets each of several models is trained on.

    The coins of the first model depend on nothing, as bounds of epsilon ask for
    (`fljax.audits.bounds.one_run`). Those of the others are tossed again where hardly any of them,
    or nearly all, would have a target, so that each model's others have two with it, and two
    without; of fewer than seven models, one.

    Args:
      num_models: M, at least 5.
      units: [T], what goes in and out together, such as the client of each row; the row itself
        where rows are on their own.
      seed: Of the draw.

    Returns:
      bool[M, T].

    Raises:
      ValueError: For fewer models, or a seed that is none.

    Example:
      >>> members = coins(9, [3, 3, 5, 7], seed=0)
      >>> members.shape, bool((members[:, 0] == members[:, 1]).all())
      ((9, 4), True)
    """
    num_models = checked("num_models", num_models, _COUNT._replace(allowed=Interval(5)))
    seed = checked("seed", seed, _SEED)
    _, owner = np.unique(_labels("units", units), return_inverse=True)
    numbers, models = np.arange(owner.max(initial=-1) + 1), np.arange(num_models)[:, None]
    # with and without, among all models but the first and one more
    least = min(2, (num_models - 1) // 2 - 1) + 1

    def tossed(turn: int) -> np.ndarray:
        return random.bits(seed, _COINS, turn, models, numbers) % np.uint64(2) == 1

    drawn, turn = tossed(0), 0
    while (odd := _is_lopsided(drawn[1:], least)).any():
        turn += 1
        drawn[1:, odd] = tossed(turn)[1:, odd]
    return drawn[:, owner]


def _is_lopsided(members: np.ndarray, least: int) -> np.ndarray:
    """Returns bool[T], which targets are in fewer models than that, or out of fewer."""
    count = members.sum(0)
    return np.minimum(count, len(members) - count) < least


def within(num_models: int, subsets: Any, seed: int) -> np.ndarray:
    """Draws halves that are balanced within each of several subsets of the targets too.

    Args:
      num_models: M.
      subsets: [T], the subset of each target, such as its client, class or hospital.
      seed: Of the draw.

    Returns:
      bool[M, T] as `halves` returns it; each model has half of each subset, the next above or below
      where it has an odd number of targets.

    Example:
      >>> members = within(2, [0, 0, 0, 1, 1, 1], seed=0)
      >>> sorted(members[:, :3].sum(1).tolist()), members.sum(1).tolist()
      ([1, 2], [3, 3])
    """
    _, subset = np.unique(_labels("subsets", subsets), return_inverse=True)
    shuffled = np.lexsort((_words(seed, "pairs", len(subset)), subset))
    sizes = np.bincount(subset)
    # the last target of an odd subset is paired with that of another
    lone = (sizes.cumsum() - 1)[sizes % 2 == 1]
    lone = lone[np.argsort(_words(seed, "lone", len(lone)))]
    order = np.concatenate([np.delete(shuffled, lone), shuffled[lone]])
    return _opposites(num_models, order, seed)


def whole(num_models: int, owners: Any, seed: int) -> np.ndarray:
    """Draws halves of users: the rows of each are in a model together, or out of it.

    Users of like size are paired, so that models have nearly the same number of rows.

    Args:
      num_models: M.
      owners: [T], the user that each row belongs to.
      seed: Of the draw.

    Returns:
      bool[M, T]: each user is in M/2 models, and each model has half of the users; where a number
      is odd, the next above or below.

    Example:
      >>> whole(2, ["ann", "ann", "bob", "bob"], seed=1).sum(1).tolist()
      [2, 2]
    """
    _, owner, sizes = np.unique(_labels("owners", owners), return_inverse=True, return_counts=True)
    order = np.lexsort((_words(seed, "pairs", len(sizes)), sizes))
    return _opposites(num_models, order, seed)[:, owner]


def _opposites(num_models: int, order: np.ndarray, seed: int) -> np.ndarray:
    """Returns bool[M, n]; of two that follow each other in the order, one is in each model."""
    num_models = checked("num_models", num_models, _COUNT)
    pairs = np.arange(-(-len(order) // 2))
    words = random.bits(seed, f"{_PURPOSE}/members", pairs, np.arange(num_models)[:, None])
    ranks = words.argsort(0).argsort(0)
    odd = _words(seed, "odd", len(pairs)) >> np.uint64(63)  # who is in one model more
    first = ranks < num_models // 2 + (num_models % 2) * odd.astype(np.int64)
    members = np.empty((num_models, len(order)), bool)
    members[:, order[::2]] = first
    members[:, order[1::2]] = ~first[:, : len(order) // 2]
    return members


def _words(seed: int, what: str, count: int) -> np.ndarray:
    return random.bits(checked("seed", seed, _SEED), f"{_PURPOSE}/{what}", np.arange(count))


def _labels(name: str, labels: Any) -> np.ndarray:
    labels = np.asarray(labels)
    if labels.ndim != 1 or not labels.size:
        raise ValueError(
            f"{name} have shape {list(labels.shape)}; give one label for each target, and a target "
            "at least."
        )
    return labels
