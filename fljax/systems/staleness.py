"""Staleness: how much a late update counts, by the versions that have followed its model."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fljax.core import parts
from fljax.core.values import NON_NEGATIVE, POSITIVE, Field, checked

Discount = Callable[[np.ndarray], np.ndarray]


def constant() -> Discount:
    """Lets late updates count like others.

    Example:
      >>> from fljax.systems import staleness
      >>> staleness.constant()(np.array([0, 3])).tolist()
      [1.0, 1.0]
    """
    return lambda staleness: np.ones(np.shape(staleness))


def polynomial(a: float = 0.5) -> Discount:
    """Discounts by (1 + staleness)^-a; a = 0.5 is FedBuff's 1 / sqrt(1 + staleness).

    Args:
      a: Exponent, 0 or more.

    Example:
      >>> from fljax.systems import staleness
      >>> staleness.polynomial(0.5)(np.array([0, 3])).tolist()
      [1.0, 0.5]
    """
    a = checked("a", a, Field(None, float, NON_NEGATIVE))
    return lambda staleness: (1.0 + np.asarray(staleness, np.float64)) ** -a


def hinge(a: float = 10.0, b: float = 4.0) -> Discount:
    """Discounts by 1 / (a (staleness - b) + 1) beyond a staleness of b, and not up to it.

    Args:
      a: Slope, above 0.
      b: Staleness that is forgiven.

    Example:
      >>> from fljax.systems import staleness
      >>> staleness.hinge(a=1, b=2)(np.array([0, 2, 3])).tolist()
      [1.0, 1.0, 0.5]
    """
    a = checked("a", a, Field(None, float, POSITIVE))
    b = checked("b", b, Field(None, float, NON_NEGATIVE))

    def discount(staleness):
        beyond = np.maximum(np.asarray(staleness, np.float64) - b, 0)
        return 1 / (a * beyond + 1)

    return discount


# name -> function of literals that returns a Discount
DISCOUNTS: dict[str, Callable[..., Discount]] = {
    "constant": constant,
    "polynomial": polynomial,
    "hinge": hinge,
}


def discount_of(text: str) -> Discount:
    """Returns the discount that a text names, such as "polynomial(0.5)".

    Raises:
      ValueError: For what names none.

    Example:
      >>> from fljax.systems import staleness
      >>> staleness.discount_of("hinge(10, 4)")(np.array([4])).tolist()
      [1.0]
    """
    return parts.make(parts.read_one("staleness", text, DISCOUNTS))
