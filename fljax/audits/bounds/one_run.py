"""Audits a mechanism in one run, by many canaries that chance includes.

Steinke, Nasr and Jagielski 2023 (arXiv:2305.08846): each of m canaries is included with probability
1/2, by a coin of its own; who sees what the mechanism releases guesses of r of them whether they
were, and abstains from the others. If it is (epsilon, delta)-differentially private where a canary
is added or removed, the chance to be right v times or more is at most

    P[W >= v] + 2 m delta max_{i = 1 .. v} P[v > W >= v - i] / i,   W ~ Binomial(r, q)

with q = 1 / (1 + e^-epsilon) (corollary 5.4). Canaries need not be independent of each other, nor
do their scores: the coins alone have to be fair. Where few of many canaries are guessed, a delta
near 1 / m leaves little to prove. How many guesses are best is not known beforehand; the paper
takes the best of several numbers of them, here each has its share of the chance to be wrong, so
that the best of them still holds at its confidence.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy

from fljax.audits.bounds.bound import Bound, check_delta
from fljax.audits.intervals import check_confidence
from fljax.core.values import NON_NEGATIVE, Field, checked

__all__ = ["audit_one_run", "correct_guesses", "epsilon_of_guesses", "guess_sizes", "p_value"]

# Guesses that could prove nothing worth a share of the chance to be wrong.
_FEWEST = 8
_COINS = "Each canary was included with probability 1/2, independently of all others."


def p_value(canaries: int, guesses: int, correct: int, epsilon: float, delta: float = 0.0) -> float:
    """Returns how likely as many right guesses are, at most, under (epsilon, delta).

    Args:
      canaries: m, how many might have been included.
      guesses: r, of how many of them something was guessed.
      correct: v, how many of these guesses are right.
      epsilon, delta: What the mechanism is said to have.

    Raises:
      ValueError: For counts that do not fit each other, or an epsilon or delta that is none.

    Example:
      >>> round(p_value(10, 10, 9, 0.0), 4)  # 11 / 1024
      0.0107
    """
    _check(canaries, guesses, correct, delta)
    if not epsilon >= 0:
        raise ValueError(f"epsilon = {epsilon!r} must be at least 0.")
    return _p_value(canaries, guesses, correct, epsilon, delta)


def epsilon_of_guesses(
    canaries: int, guesses: int, correct: int, delta: float = 0.0, confidence: float = 0.95
) -> float:
    """Returns below what epsilon is not, by right guesses of one run.

    Args:
      canaries, guesses, correct, delta: As `p_value` takes them; the number of guesses was chosen
        before it was known how many are right.
      confidence: Of the bound.

    Raises:
      ValueError: For counts that do not fit each other, or a delta or confidence that is none.

    Example:
      >>> round(epsilon_of_guesses(1000, 100, 75, 1e-4), 3)
      0.673
    """
    _check(canaries, guesses, correct, delta)
    check_confidence(confidence)
    return _epsilon(canaries, guesses, correct, delta, 1 - confidence)


def correct_guesses(scores: Any, included: Any, most: int, least: int) -> int:
    """Returns how many guesses are right that take high scores for included, low ones for not.

    Args:
      scores: float[m], of each canary. Equal ones are guessed in their order.
      included: bool[m].
      most: How many of the highest are guessed to be included.
      least: How many of the lowest are guessed not to be.

    Raises:
      ValueError: For more guesses than canaries, or scores that are no numbers.

    Example:
      >>> correct_guesses([5.0, 1.0, 3.0, 2.0], [True, False, False, True], most=2, least=1)
      2
    """
    scores, included = _canaries(scores, included)
    if not (most >= 0 and least >= 0 and most + least <= len(scores)):
        raise ValueError(
            f"most = {most} and least = {least} must be at least 0, and together as many as there "
            f"are canaries at most, {len(scores)}."
        )
    return _correct(included[np.argsort(scores, kind="stable")], most, least)


def guess_sizes(canaries: int) -> list[tuple[int, int]]:
    """Returns the (most, least) that an audit tries: all canaries, a half of them, a quarter, ...

    Half of the guesses go to the highest scores and half to the lowest; or all to the highest,
    which is best where only included canaries are told for sure.

    Example:
      >>> guess_sizes(32)
      [(16, 16), (8, 8), (4, 4), (16, 0), (8, 0)]
    """
    both, high = [], []
    size = canaries
    while size >= _FEWEST:
        both.append((size - size // 2, size // 2))
        if size < canaries:  # to take all for included proves nothing
            high.append((size, 0))
        size //= 2
    return both + high or [(canaries - canaries // 2, canaries // 2)]


def audit_one_run(
    scores: Any,
    included: Any,
    *,
    delta: float = 0.0,
    confidence: float = 0.95,
    guesses: Sequence[tuple[int, int]] | None = None,
) -> Bound:
    """Returns the lower bound of epsilon that the canaries of one run prove.

    Args:
      scores: float[m], of each canary, higher where it seems to be included.
      included: bool[m], which of them were, each by a fair coin.
      delta: Of (epsilon, delta).
      confidence: Of the bound, whichever number of guesses it is by.
      guesses: (most, least) of `correct_guesses` that are tried, chosen without `included`; each
        costs some confidence of the others. None for `guess_sizes`.

    Raises:
      ValueError: For arrays that do not fit each other, scores that are no numbers, or a delta or
        confidence that is none.

    Example:
      >>> included = np.random.default_rng(0).random(1000) < 0.5
      >>> round(audit_one_run(included, included).epsilon, 2)  # 500 guesses, all of them right
      4.49
    """
    scores, included = _canaries(scores, included)
    check_delta(delta)
    check_confidence(confidence)
    m = len(scores)
    sizes = guess_sizes(m) if guesses is None else list(guesses)
    if not sizes:
        raise ValueError("guesses = [] tries nothing. Name at least one (most, least).")
    found = {(most, least): correct_guesses(scores, included, most, least) for most, least in sizes}
    miss = (1 - confidence) / len(sizes)
    best, epsilon = sizes[0], 0.0
    for (most, least), correct in found.items():
        # a bound that is below the best one so far is not worth the search
        if _p_value(m, most + least, correct, epsilon, delta) < miss:
            best, epsilon = (most, least), _epsilon(m, most + least, correct, delta, miss)
    numbers = {
        "canaries": m, "included": int(included.sum()), "guesses": sum(best),
        "correct": found[best], "tried": len(sizes),
    }  # fmt: skip
    return Bound("one run", epsilon, confidence, delta, None, (_COINS,), numbers)


def _epsilon(canaries: int, guesses: int, correct: int, delta: float, miss: float) -> float:
    """Returns the largest epsilon that guesses refute, by bisection; 0 where they refute none.

    Its end from below is taken, which is refuted itself. What refutes an epsilon refutes smaller
    ones: where the mechanism had one of these, it would have the larger one too.
    """

    def refuted(epsilon: float) -> bool:
        return _p_value(canaries, guesses, correct, epsilon, delta) < miss

    if not refuted(0.0):
        return 0.0
    low, high = 0.0, 1.0
    while refuted(high):
        low, high = high, 2 * high
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (middle, high) if refuted(middle) else (low, middle)
    return low


def _p_value(canaries: int, guesses: int, correct: int, epsilon: float, delta: float) -> float:
    """Returns `p_value` of what is known to fit."""
    if correct == 0:
        return 1.0
    accuracy = scipy.special.expit(epsilon)
    as_many = _at_least(correct, guesses, accuracy)
    if delta == 0:
        return float(as_many)
    fewer = np.arange(1, correct + 1)
    nearly = _at_least(correct - fewer, guesses, accuracy) - as_many
    return min(float(as_many + 2 * canaries * delta * (nearly / fewer).max()), 1.0)


def _at_least(counts: Any, trials: int, chance: float) -> Any:
    """Returns how likely as many successes are, or more."""
    some = np.maximum(counts, 1)
    return np.where(
        np.asarray(counts) > 0, scipy.special.betainc(some, trials - some + 1, chance), 1.0
    )


def _correct(ordered: np.ndarray, most: int, least: int) -> int:
    """Returns the number of right guesses, of who is included in the order of scores."""
    return int(ordered[len(ordered) - most :].sum() + (~ordered[:least]).sum())


def _canaries(scores: Any, included: Any) -> tuple[np.ndarray, np.ndarray]:
    scores, included = np.asarray(scores, np.float64), np.asarray(included)
    if scores.ndim != 1 or included.shape != scores.shape or included.dtype != bool:
        raise ValueError(
            f"scores{list(scores.shape)} and included{list(included.shape)} of {included.dtype} "
            "must be a number and a truth value for each canary."
        )
    if np.isnan(scores).any():
        raise ValueError(
            f"{np.isnan(scores).sum()} of {len(scores)} scores are NaN. Give each canary a score, "
            "such as 0 where nothing was learned of it."
        )
    return scores, included


def _check(canaries: int, guesses: int, correct: int, delta: float) -> None:
    for name, count in (("canaries", canaries), ("guesses", guesses), ("correct", correct)):
        checked(name, count, Field(None, int, NON_NEGATIVE))
    if not correct <= guesses <= canaries:
        raise ValueError(
            f"correct = {correct}, guesses = {guesses} and canaries = {canaries}: only what was "
            "guessed is right, and only canaries are guessed about."
        )
    check_delta(delta)
