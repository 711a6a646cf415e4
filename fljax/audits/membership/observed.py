"""An attacker's measurements: signals of rows under a model, and under models of its own.

A signal is one number of a row under one model, such as its loss. An attacker who trains models
itself, on rows like those that it asks about, knows what the signal is like with the row among
them, and without (Shokri et al. 2017, arXiv:1610.05820: shadow models). Rows stand for whatever
membership is asked of: of whole clients, a signal is one of all their rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Observed(NamedTuple):
    """Signals of T targets under one model, and under M shadow models.

    Attributes:
      target: float64[T, Q], under the model that is attacked; Q looks at each, such as the models
        of several rounds, or 1.
      shadows: float64[M, T, Q], under the shadow models; M is 0 for attackers who train none.
      members: bool[M, T], which targets each shadow model was trained on.
      population: float64[Z, Q], of rows that no model saw, under the model that is attacked; Z is 0
        for attackers who have none.
      population_shadows: float64[M, Z, Q], of these under the shadow models.
      classes: int64[T] the class of each target, for attacks that judge classes apart; empty where
        it is not known.

    Example:
      >>> alone = Observed.of(np.array([0.1, 2.3]))
      >>> alone.target.shape, alone.shadows.shape, alone.members.shape
      ((2, 1), (0, 2, 1), (0, 2))
    """

    target: np.ndarray
    shadows: np.ndarray
    members: np.ndarray
    population: np.ndarray
    population_shadows: np.ndarray
    classes: np.ndarray = np.zeros(0, np.int64)

    @classmethod
    def of(
        cls,
        target: np.ndarray,
        shadows: np.ndarray | None = None,
        members: np.ndarray | None = None,
        population: np.ndarray | None = None,
        population_shadows: np.ndarray | None = None,
        classes: np.ndarray | None = None,
    ) -> Observed:
        """Returns signals as they are kept: without looks they have one, and nothing is None.

        Raises:
          ValueError: For arrays whose shapes do not fit each other.
        """
        target = _with_looks(target, 1)
        num_targets, looks = target.shape
        shadows = np.zeros((0, num_targets, looks)) if shadows is None else _with_looks(shadows, 2)
        count = len(shadows)
        members = np.zeros((count, num_targets), bool) if members is None else np.asarray(members)
        population = np.zeros((0, looks)) if population is None else _with_looks(population, 1)
        if population_shadows is None:
            population_shadows = np.zeros((count, len(population), looks))
        population_shadows = _with_looks(population_shadows, 2)
        classes = np.zeros(0, np.int64) if classes is None else np.asarray(classes)
        observed = cls(target, shadows, members, population, population_shadows, classes)
        _check_shapes(observed)
        return observed


class MembershipAttack(NamedTuple):
    """A rule that says how likely it is that a model was trained on a row.

    Attributes:
      signal: Which signal it reads, a name in `fljax.audits.membership.signals.SIGNALS`.
      score: (Observed) -> float64[T], higher where membership is likelier.
      needs: What it needs beside the model: any of "in" and "out" (shadow models with the target,
        and without it), "population" and "classes".
    """

    signal: str
    score: Callable[[Observed], np.ndarray]
    needs: tuple[str, ...] = ()


def _with_looks(signals: np.ndarray, axes: int) -> np.ndarray:
    """Returns signals in float64 with an axis of looks."""
    signals = np.asarray(signals, np.float64)
    return signals[..., None] if signals.ndim == axes else signals


def _check_shapes(observed: Observed) -> None:
    targets, looks = observed.target.shape
    models, rows = len(observed.shadows), len(observed.population)
    shapes = {
        "shadows": (models, targets, looks),
        "members": (models, targets),
        "population": (rows, looks),
        "population_shadows": (models, rows, looks),
        "classes": (targets,),
    }
    for name, shape in shapes.items():
        found = getattr(observed, name).shape
        if found != shape and not (name == "classes" and found == (0,)):
            raise ValueError(
                f"{name} has shape {list(found)} and must have {list(shape)}: there are {models} "
                f"shadow models, {targets} targets, {rows} rows of a population and {looks} looks."
            )
    if observed.members.dtype != bool:
        raise ValueError(
            f"members is {observed.members.dtype} and must be bool, true where a shadow model was "
            "trained on a target."
        )
