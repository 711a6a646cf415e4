"""Estimates epsilon in one run by canaries: directions that some clients sent.

Andrew et al. 2023, "One-shot empirical privacy estimation for federated learning"
(arXiv:2302.03098). The cosine between a direction that nobody sent and what is released is close to
N(0, 1 / d) in d dimensions; that of directions that were sent is larger, the more so the less noise
there is. With a Gaussian fitted to these, epsilon is that between both distributions (algorithm 1).
Who sees the models of all rounds takes each canary's largest cosine with the change of a round, of
canaries that were sent and of others, with a Gaussian fitted to each kind (algorithm 3).

What comes of it is an estimate: nothing bounds how far it is off where canaries are few, where
they crowd each other out (as many as there are dimensions, say), or where what clients learn is not
almost orthogonal to them. The lower bound beside it counts each canary of a run as a trial. Those
that nobody sent are exactly that; those that were sent share a run's noise and hide each other, so
that their errors are not quite independent. An audit without this assumption is
`fljax.audits.bounds.one_run`.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fljax.audits.bounds.bound import Bound
from fljax.audits.bounds.error_rates import audit_scores
from fljax.audits.bounds.gaussians import epsilon_between_gaussians
from fljax.core.canaries import check_chance, check_seed, direction, is_included

__all__ = ["audit_canaries", "cosines", "epsilon_of_cosines", "included"]

PyTree = Any

# Directions that are drawn at once.
_AT_ONCE = 16
_TRIALS = (
    "Canaries of a run are independent trials, though those that were sent share its noise.",
    "What clients learn is almost orthogonal to random directions.",
)


def cosines(changes: PyTree, seed: int, canaries: Any) -> np.ndarray:
    """Returns the cosines between changes of a model and the directions of canaries.

    Directions are drawn anew, a few at a time, so that only these are ever held.

    Args:
      changes: Arrays [R, ...] with the structure and shapes of an update: R changes, such as those
        of all rounds, or of the whole run alone (R = 1).
      seed: Of the canaries, as the attack "canary" was given it.
      canaries: int[k], their numbers: those of clients, and others that nobody has.

    Returns:
      float64[R, k]; 0 where nothing has changed.

    Raises:
      ValueError: For a seed that is none.

    Example:
      >>> sent = direction(0, 3, {"w": jnp.zeros((40, 50))})
      >>> cosines({"w": sent["w"][None]}, 0, [3, 4]).round(1).tolist()
      [[1.0, 0.0]]
    """
    check_seed(seed)
    canaries = np.asarray(canaries, np.int32).reshape(-1)
    with jax.default_matmul_precision("highest"):
        found = _products(changes, np.uint32(seed), canaries)
    products, norms = (np.asarray(each, np.float64) for each in found)
    return np.divide(
        products, norms[:, None], out=np.zeros_like(products), where=norms[:, None] > 0
    )


def included(seed: int, canaries: Any, chance: float) -> np.ndarray:
    """Returns bool[k], which canaries were sent: those of the attack "canary" with a chance.

    Example:
      >>> included(0, range(4), 1.0).tolist()
      [True, True, True, True]
    """
    check_seed(seed)
    check_chance(chance)
    canaries = np.asarray(list(canaries), np.int32)
    return np.asarray(jax.vmap(lambda canary: is_included(seed, canary, chance))(canaries))


def epsilon_of_cosines(
    sent: Any, delta: float, dimensions: int | None = None, unsent: Any = None
) -> float | None:
    """Returns what epsilon seems to be, by the cosines of canaries.

    Args:
      sent: float[k], of canaries that were sent.
      delta: Above 0 and below 1.
      dimensions: d, of cosines with one change; those of directions that nobody sent are then
        N(0, 1 / d).
      unsent: float[n], in place of d: cosines of directions that nobody sent, to which a Gaussian
        is fitted as well, such as largest ones over rounds.

    Returns:
      Epsilon; None of fewer than two canaries of a kind, to which no Gaussian can be fitted.

    Raises:
      ValueError: Unless one of d and unsent is given, or for a delta that is none.

    Example:
      >>> draws = np.random.default_rng(0).standard_normal(1000) / 100
      >>> round(epsilon_of_cosines(draws + 0.01, 1e-5, dimensions=10_000), 1)  # of noise 1: 4.4
      4.7
    """
    if (dimensions is None) == (unsent is None):
        raise ValueError("Give either dimensions or the cosines of canaries that were not sent.")
    null = (0.0, dimensions**-0.5) if dimensions else _fitted(unsent)
    found = _fitted(sent)
    if null is None or found is None:
        return None
    return epsilon_between_gaussians(found, null, delta)


def audit_canaries(
    sent: Any,
    unsent: Any,
    *,
    delta: float,
    dimensions: int | None = None,
    confidence: float = 0.95,
    gaussian: bool = False,
) -> Bound:
    """Returns the estimate of epsilon, and the lower bound that canaries as trials prove.

    Args:
      sent: float[k], cosines of canaries that were sent; with several changes the largest of each.
      unsent: float[n], the same of canaries that were not.
      delta: Above 0 and below 1.
      dimensions: d, where each is the cosine with one change; None of largest ones.
      confidence: Of the lower bound.
      gaussian: Whether that is the one of mu-Gaussian privacy, which assumes more.

    Raises:
      ValueError: For a delta or confidence that is none.

    Example:
      >>> draws = np.random.default_rng(0).standard_normal((2, 1000)) / 100
      >>> bound = audit_canaries(draws[0] + 0.01, draws[1], delta=1e-5, dimensions=10_000)
      >>> 0 < bound.epsilon < 4.4, round(bound.estimate, 1)
      (True, 4.7)
    """
    null = {"unsent": unsent} if dimensions is None else {"dimensions": dimensions}
    estimate = epsilon_of_cosines(sent, delta, **null)
    how = {"delta": delta, "confidence": confidence, "gaussian": gaussian}
    bound = audit_scores(sent, unsent, **how, name="canaries", assumes=_TRIALS)
    numbers = {f"mean_{name}": _mean(each) for name, each in (("sent", sent), ("unsent", unsent))}
    return bound._replace(estimate=estimate, numbers=bound.numbers | numbers)


@jax.jit
def _products(changes: PyTree, seed: jax.Array, canaries: jax.Array) -> tuple:
    """Returns (inner products [R, k] of changes and directions, norms [R] of changes)."""
    like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], jnp.float32), changes)
    changes = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), changes)

    def with_canary(canary):
        own = direction(seed, canary, like)
        return sum(
            leaf.reshape(len(leaf), -1) @ numbers.reshape(-1)
            for leaf, numbers in zip(jax.tree.leaves(changes), jax.tree.leaves(own), strict=True)
        )

    squares = [jnp.square(leaf.reshape(len(leaf), -1)).sum(1) for leaf in jax.tree.leaves(changes)]
    return jax.lax.map(with_canary, canaries, batch_size=_AT_ONCE).T, jnp.sqrt(sum(squares))


def _fitted(numbers: Any) -> tuple[float, float] | None:
    """Returns (mean, standard deviation) of a Gaussian; None of fewer than two numbers."""
    numbers = np.asarray(numbers, np.float64)
    return (float(numbers.mean()), float(numbers.std(ddof=1))) if len(numbers) > 1 else None


def _mean(numbers: Any) -> float:
    return float(np.mean(numbers)) if len(numbers) else math.nan
