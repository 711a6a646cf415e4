"""Attacks each of several models, with all others as its shadow models.

Models that were trained side by side, on targets drawn by one design, are all alike to an attacker:
so M of them make M attacks, as Carlini et al. 2021 (arXiv:2112.03570) evaluate theirs.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fljax.audits.membership.observed import MembershipAttack, Observed


def in_turn(
    attack: MembershipAttack,
    signals: Any,
    members: Any,
    population: Any = None,
    classes: Any = None,
    attacked: Any = None,
) -> np.ndarray:
    """Returns the scores of an attack on each model.

    Args:
      attack: Which one.
      signals: [M, T] or [M, T, Q], those that it reads, of T targets under M models.
      members: bool[M, T], which targets each model was trained on.
      population: [M, Z] or [M, Z, Q], those of rows that no model saw, or None.
      classes: [T] the class of each target, or None.
      attacked: Numbers of the models that are attacked; None for all.

    Returns:
      float64[A, T] scores, for `curves.judge_models` with `members[attacked]`.

    Example:
      >>> from fljax.audits.membership.thresholds import loss
      >>> in_turn(loss(), [[0.1, 2.0], [3.0, 0.2]], [[True, False], [False, True]]).tolist()
      [[-0.1, -2.0], [-3.0, -0.2]]
    """
    signals, members = np.asarray(signals, np.float64), np.asarray(members)
    numbers = np.arange(len(signals)) if attacked is None else np.asarray(attacked)
    population = None if population is None else np.asarray(population, np.float64)
    scores = np.empty((len(numbers), signals.shape[1]))
    for place, number in enumerate(numbers.tolist()):
        others = np.delete(np.arange(len(signals)), number)
        seen = (None, None) if population is None else (population[number], population[others])
        observed = Observed.of(signals[number], signals[others], members[others], *seen, classes)
        scores[place] = attack.score(observed)
    return scores
