"""Draws label mixtures of each client that follow one another: what is common changes, not what is.

label_priors(2, alpha=0.3)   two mixtures for each client, each with half of its rows

The classes of a client's rows in time are then p_0(y), p_1(y), ..., while rows of a class are drawn
alike: label shift, or prior drift, where `concept_shift` changes the meaning of labels.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fljax.core import random
from fljax.core.values import COUNT, POSITIVE, Field, checked


class Priors(NamedTuple):
    """So many label mixtures, and how much alike they are.

    Example:
      >>> data.label_priors(3, alpha=1.0)
      Priors(count=3, alpha=1.0)
    """

    count: int
    alpha: float


def label_priors(count: int = 2, alpha: float = 0.3) -> Priors:
    """Divides the rows of each client among label mixtures, which it holds one after another.

    Args:
      count: Mixtures. A client holds n // count of its n rows at a time, and one of fewer rows than
        mixtures always holds all.
      alpha: Concentration of the Dirichlet distribution by which classes are weighted, for each
        client and mixture anew; large makes all mixtures those of the client, small makes few
        classes common at a time.

    Example:
      >>> stream = data.from_arrays(np.eye(6), [0, 1, 0, 1, 0, 1], client_ids=[0] * 6)
      >>> drifting = data.with_concept_drift(stream, 'label_priors(2, alpha=0.01), sudden(5)')
      >>> [(drifting.at(round).train.rows() % 2).tolist() for round in (4, 5)]
      [[0, 0, 0], [1, 1, 1]]
    """
    return Priors(
        checked("count", count, Field(2, int, COUNT)),
        checked("alpha", alpha, Field(0.3, float, POSITIVE)),
    )


def divided(
    priors: Priors,
    index: np.ndarray,
    labels: np.ndarray,
    sizes: np.ndarray,
    num_classes: int,
    seed: int,
    who: str,
) -> np.ndarray:
    """Returns the rows of all clients, each client's mixture by mixture.

    A mixture takes its rows one by one from those that are left, each with a probability in
    proportion to the weight of its class (Efraimidis and Spirakis 2006).

    Args:
      priors: The mixtures.
      index: int[rows] row numbers, client by client.
      labels: int[rows] their classes.
      sizes: int64[N] rows of each client.
      num_classes: Of the labels.
      seed: Draws weights and rows.
      who: Separates clients who train from those who are held out.

    Returns:
      int64[rows held in any mixture]: of a client of n rows, n // count for each mixture, in a
      random order; of one of fewer than `count` all, as often as there are mixtures.
    """
    owners, offsets = np.repeat(np.arange(len(sizes)), sizes), np.cumsum(sizes) - sizes
    held = sizes // priors.count
    mixture = np.full(len(index), priors.count)
    for number in range(priors.count):
        weights = _log_weights(priors.alpha, (len(sizes), num_classes), seed, who, number)
        lots = random.uniform(seed, "label priors/rows", index, number)
        late = np.log(-np.log(lots)) - weights[owners, labels]
        order = np.lexsort((late, mixture < priors.count, owners))
        place = np.arange(len(index)) - offsets[owners]
        mixture[order[place < held[owners]]] = number
    always = np.flatnonzero(sizes[owners] < priors.count)
    taken = np.concatenate([np.flatnonzero(mixture < priors.count)] + [always] * priors.count)
    mixture = np.concatenate(
        [mixture[mixture < priors.count], np.repeat(np.arange(priors.count), len(always))]
    )
    shuffled = random.bits(seed, "concept drift/order", index)
    return index[taken[np.lexsort((shuffled[taken], mixture, owners[taken]))]]


def held_rows(priors: Priors, sizes: np.ndarray) -> np.ndarray:
    """Returns int64[N], how many rows clients of these sizes hold at a time.

    Example:
      >>> held_rows(label_priors(3), np.array([9, 7, 2, 0])).tolist()
      [3, 2, 2, 0]
    """
    return np.where(sizes < priors.count, sizes, sizes // priors.count)


def _log_weights(alpha: float, shape: tuple[int, int], seed: int, who: str, mixture: int):
    """Returns logarithms of a Dirichlet draw's weights, but for their sum, however small they are.

    A Gamma(alpha) variable is one of alpha + 1, times a uniform one to the power of 1 / alpha
    (Stuart 1962): its logarithm does not underflow.
    """
    rng = random.generator(seed, f"label priors/{who}", mixture)
    return np.log(rng.standard_gamma(alpha + 1, shape)) + np.log1p(-rng.random(shape)) / alpha
