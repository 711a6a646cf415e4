"""Weights losses: of classes by numbers or in balance, of examples by how hard they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fljax.core.values import NON_NEGATIVE, Field, Interval, checked, sequence, wrong

BALANCED = "balanced"
# Of the focal loss.
GAMMA = Field(0.0, float, NON_NEGATIVE)
ALPHA = Field(None, float, Interval(0, 1), optional=True)


class Weighting(NamedTuple):
    """Weights the losses of targets; the mean still divides by how many there are.

    Attributes:
      weights: float64[C] of the classes, "balanced" until the labels are counted, or None.
      focal_gamma: 0, or how much less an example counts the surer the model is of its class.
    """

    weights: Any = None
    focal_gamma: float = 0.0

    @property
    def is_plain(self) -> bool:
        """True where it changes nothing."""
        return self.weights is None and not self.focal_gamma

    @property
    def waits(self) -> bool:
        """True while the labels are still to be counted."""
        return isinstance(self.weights, str)

    def of(self, losses: jax.Array, labels: jax.Array) -> jax.Array:
        """Returns cross entropies [...] weighted by class and by difficulty."""
        if self.waits:
            raise ValueError(
                "class_weights = 'balanced' waits for the labels, which runs count before they "
                "begin. Elsewhere give class_weights = fljax.tasks.balanced_weights(counts)."
            )
        losses = focal(losses, self.focal_gamma)
        if self.weights is None:
            return losses
        return losses * jnp.asarray(self.weights, losses.dtype)[labels]


PLAIN = Weighting()


def weighting(
    num_classes: int,
    class_weights: Sequence[float] | str | None = None,
    focal_gamma: float = 0.0,
    focal_alpha: float | None = None,
) -> Weighting:
    """Returns the weighting that arguments of a task ask for.

    Args:
      num_classes: C.
      class_weights: C numbers, "balanced", or None.
      focal_gamma: Of the focal loss; 0 is the cross entropy.
      focal_alpha: Of two classes, alpha for class 1 and 1 - alpha for class 0.

    Raises:
      ValueError: For numbers out of range, of another count, or that contradict each other.
    """
    gamma = checked("focal_gamma", focal_gamma, GAMMA)
    alpha = checked("focal_alpha", focal_alpha, ALPHA)
    if alpha is not None:
        if class_weights is not None:
            raise ValueError(
                f"focal_alpha = {alpha:g} and class_weights both weigh the classes: alpha is "
                f"class_weights = ({1 - alpha:g}, {alpha:g}). Give one of them."
            )
        class_weights = (1 - alpha, alpha)
    return Weighting(checked_weights("class_weights", class_weights, num_classes), gamma)


def checked_weights(name: str, weights: Any, count: int) -> Any:
    """Returns weights as float64[count], "balanced" or None; refuses anything else."""
    if weights is None or (isinstance(weights, str) and weights == BALANCED):
        return weights
    must = f"'{BALANCED}', or {count} numbers of at least 0, not all 0"
    numbers = np.asarray([] if isinstance(weights, str) else sequence(name, weights, must))
    if numbers.shape != (count,) or numbers.dtype.kind not in "iuf":
        raise wrong(name, weights, must)
    numbers = numbers.astype(np.float64)
    if not (np.isfinite(numbers).all() and (numbers >= 0).all() and numbers.any()):
        raise wrong(name, weights, must)
    return numbers


def balanced_weights(counts: Sequence[int]) -> np.ndarray:
    """Returns weights with which all classes count alike: rows ÷ (classes x rows of the class).

    They are scikit-learn's `class_weight="balanced"`, and their mean over the rows is 1. A class
    without rows, which only evaluations may meet, has the weight 1, and is none of the classes.

    Args:
      counts: [C] rows of each class.

    Returns:
      float64[C].

    Example:
      >>> tasks.balanced_weights([30, 10]).round(3).tolist()
      [0.667, 2.0]
    """
    rows = np.asarray(counts, np.float64)
    if rows.ndim != 1 or not rows.size or (rows < 0).any() or not rows.any():
        raise wrong("counts", counts, "the rows of each class, some of them above 0")
    present = rows > 0
    return np.where(present, rows.sum() / (present.sum() * np.where(present, rows, 1)), 1.0)


def focal(losses: jax.Array, gamma: float) -> jax.Array:
    """Returns (1 - p)^gamma x the cross entropy of targets of probability p = exp(-loss).

    The focal loss of Lin et al. (2017, arXiv:1708.02002); their alpha is a weight of classes.
    """
    if not gamma:
        return losses
    # a power below 1 has no slope at 0
    missed = jnp.maximum(-jnp.expm1(-losses), jnp.finfo(losses.dtype).tiny)
    return missed**gamma * losses
