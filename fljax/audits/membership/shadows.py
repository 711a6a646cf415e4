"""Shadow models of each target, with it and without it, and what is typical of their signals.

A shadow model whose signal of a target is not finite in every look does not count for that target:
a model that diverged says nothing of who was in it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fljax.audits.membership.observed import Observed

_WORDS = {"in": "with", "out": "without"}


class Side(NamedTuple):
    """The shadow models of one kind, those with a target or those without it.

    Attributes:
      values: float64[M, T, Q] signals, 0 where they do not count.
      counted: bool[M, T], which models count for which target.
    """

    values: np.ndarray
    counted: np.ndarray

    @property
    def sizes(self) -> np.ndarray:
        """Numbers of models that count for each target, int64[T]."""
        return self.counted.sum(0)

    def means(self) -> np.ndarray:
        """Returns float64[T, Q], the mean signals of each target."""
        return self.values.sum(0) / self.sizes[:, None]

    def medians(self) -> np.ndarray:
        """Returns float64[T, Q], the median signals of each target; of two in the middle, halfway.

        Example:
          >>> values = np.array([[[1.0]], [[5.0]], [[0.0]], [[2.0]]])
          >>> Side(values, np.array([[True], [True], [False], [True]])).medians().tolist()
          [[2.0]]
        """
        ordered = np.sort(np.where(self.counted[..., None], self.values, np.inf), 0)
        low, high = (self.sizes - 1) // 2, self.sizes // 2
        middle = [np.take_along_axis(ordered, at[None, :, None], 0)[0] for at in (low, high)]
        return (middle[0] + middle[1]) / 2

    def deviations(self, centers: np.ndarray) -> np.ndarray:
        """Returns float64[M, T, Q], what signals are above the centre of their target, or 0."""
        return np.where(self.counted[..., None], self.values - centers, 0.0)


def side(observed: Observed, name: str, attack: str) -> Side:
    """Returns the shadow models of one side.

    Args:
      observed: What was measured.
      name: "in" for models with the target, "out" for those without it.
      attack: Who asks, for messages.

    Raises:
      ValueError: If a target has no such model.

    Example:
      >>> observed = Observed.of([0.5], [[0.1], [0.9]], [[True], [False]])
      >>> side(observed, "in", "lira").means().tolist()
      [[0.1]]
    """
    belongs = observed.members if name == "in" else ~observed.members
    counted = belongs & np.isfinite(observed.shadows).all(-1)
    missing = np.flatnonzero(~counted.any(0))
    if len(missing):
        lost = int(belongs[:, missing].any(0).sum())
        finite = f" {lost} of them had some, whose signals are not finite." * bool(lost)
        raise ValueError(
            f"{attack} needs shadow models {_WORDS[name]} each target, and {len(missing)} of "
            f"{counted.shape[1]} targets, such as target {missing[0]}, have none among "
            f"{len(counted)} models.{finite} Train models by a balanced design "
            "(fljax.audits.membership.designs), or leave these targets out."
        )
    return Side(np.where(counted[..., None], observed.shadows, 0.0), counted)


def lowest_where_unknown(scores: np.ndarray) -> np.ndarray:
    """Returns scores in which NaN, of targets whose signal says nothing, is -inf.

    Example:
      >>> lowest_where_unknown(np.array([0.5, np.nan])).tolist()
      [0.5, -inf]
    """
    return np.where(np.isnan(scores), -np.inf, scores)
