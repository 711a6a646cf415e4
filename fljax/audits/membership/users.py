"""Whole users: from what was measured of their rows to whether the user took part.

Rows of a user are in a model together. Either rows are judged first, and a user's score is made of
those of the rows (the sum of log likelihood ratios is that of all rows where rows are independent,
the mean does without how many there are); or a signal of a user, the mean of its rows' signals, is
judged as that of a row would be, by shadow models with and without the user.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fljax.audits.membership.observed import Observed
from fljax.core.values import Field, checked

_HOW = Field("mean", str, ("mean", "sum", "max"))


class Rows(NamedTuple):
    """Rows in the order of their users.

    Attributes:
      users: [U] names of the users, sorted.
      order: int64[T] rows, those of a user one after another.
      starts: int64[U], where the rows of each user begin in it.
      owner: int64[T], the number of each row's user.
    """

    users: np.ndarray
    order: np.ndarray
    starts: np.ndarray
    owner: np.ndarray


def scores_of_users(scores: Any, owners: Any, how: str = "mean") -> tuple[np.ndarray, np.ndarray]:
    """Returns the users, and a score for each of them from those of their rows.

    Args:
      scores: [..., T] of rows, higher where membership is likelier; axes in front are of models.
      owners: [T], the user that each row belongs to.
      how: "mean", "sum" or "max".

    Returns:
      ([U] users, sorted; float64[..., U]). Rows whose score is -inf, of which a model says nothing
      that is finite, do not count; -inf is the score of users without others.

    Raises:
      ValueError: For scores without an owner each, or another `how`.

    Example:
      >>> users, scores = scores_of_users([1.0, 3.0, -2.0], ["ann", "ann", "bob"])
      >>> users.tolist(), scores.tolist()
      (['ann', 'bob'], [2.0, -2.0])
    """
    how = checked("how", how, _HOW)
    scores = np.asarray(scores, np.float64)
    rows = _by_user(owners, scores.shape[-1:])
    counted = ~np.isneginf(scores)
    if how == "max":
        return rows.users, np.maximum.reduceat(scores[..., rows.order], rows.starts, -1)
    total, count = _sums(np.where(counted, scores, 0.0), rows), _sums(counted, rows)
    found = total / np.maximum(count, 1) if how == "mean" else total
    return rows.users, np.where(count > 0, found, -np.inf)


def observed_of_users(
    observed: Observed, owners: Any, population_owners: Any = None
) -> tuple[np.ndarray, Observed]:
    """Returns the users, and what was measured of them: the mean of their rows' signals.

    Args:
      observed: What was measured of T rows.
      owners: [T], the user that each row belongs to.
      population_owners: [Z] those of the population; None leaves it out.

    Returns:
      ([U] users, sorted; `Observed` of U targets). Signals that are not finite do not count in a
      mean. Users have no class.

    Raises:
      ValueError: If a shadow model was trained on a part of a user's rows.

    Example:
      >>> rows = Observed.of([1.0, 3.0, 5.0], [[0.0, 2.0, 4.0]], [[True, True, False]])
      >>> users, observed = observed_of_users(rows, [7, 7, 8])
      >>> observed.target.tolist(), observed.members.tolist()
      ([[2.0], [5.0]], [[True, False]])
    """
    rows = _by_user(owners, observed.target.shape[:1])
    first = rows.order[rows.starts]
    members = observed.members[:, first]
    split = (members[:, rows.owner] != observed.members).any(0)
    if split.any():
        raise ValueError(
            f"user {rows.users[rows.owner[split.argmax()]]} has rows in a shadow model and rows "
            "outside of it. Draw the models by fljax.audits.membership.designs.whole, or judge "
            "rows and take scores_of_users."
        )
    population = population_shadows = None
    if population_owners is not None:
        others = _by_user(population_owners, observed.population.shape[:1])
        population = _means(observed.population, others)
        population_shadows = _means(observed.population_shadows, others)
    return rows.users, Observed.of(
        _means(observed.target, rows),
        _means(observed.shadows, rows),
        members,
        population,
        population_shadows,
    )


def _by_user(owners: Any, shape: tuple[int, ...]) -> Rows:
    owners = np.asarray(owners)
    if owners.shape != shape or not owners.size:
        raise ValueError(
            f"owners have shape {list(owners.shape)}; give the user of each of the "
            f"{list(shape)} rows, and a row at least."
        )
    users, owner, counts = np.unique(owners, return_inverse=True, return_counts=True)
    return Rows(users, owner.argsort(kind="stable"), counts.cumsum() - counts, owner)


def _sums(values: np.ndarray, rows: Rows) -> np.ndarray:
    return np.add.reduceat(np.asarray(values, np.float64)[..., rows.order], rows.starts, -1)


def _means(signals: np.ndarray, rows: Rows) -> np.ndarray:
    """Returns float64[..., U, Q] of signals [..., T, Q]; NaN of users without a finite one."""
    signals = np.swapaxes(signals, -1, -2)
    finite = np.isfinite(signals)
    with np.errstate(invalid="ignore"):
        means = _sums(np.where(finite, signals, 0.0), rows) / _sums(finite, rows)
    return np.swapaxes(means, -1, -2)
