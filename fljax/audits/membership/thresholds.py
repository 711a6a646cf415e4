"""Thresholds of one signal: rows that a model knows well were members.

The loss (Yeom et al. 2017, arXiv:1709.01604), the entropy and the modified entropy (Song and Mittal
2020, arXiv:2003.10595). With one threshold for all rows, no shadow model is needed: curves try all.

Song and Mittal have a threshold for each class, that which tells the members of shadow models best:
the mean of its true positive and true negative rates is the highest. The score is then how far
below the threshold of its class a row's signal is, so that the attack of the paper is at 0, and
curves move all thresholds alike.
"""

from __future__ import annotations

import numpy as np

from fljax.audits.membership.observed import MembershipAttack, Observed
from fljax.audits.membership.shadows import lowest_where_unknown
from fljax.audits.membership.signals import sign_of
from fljax.core.values import Field, checked


def loss(per_class: bool = False) -> MembershipAttack:
    """Returns the attack on the loss of a row, which is lower of members.

    Args:
      per_class: Whether shadow models give a threshold for each class. Several looks are one by
        their mean.

    Example:
      >>> loss().score(Observed.of(np.array([0.1, 2.3]))).tolist()
      [-0.1, -2.3]
    """
    return _threshold("loss", per_class)


def entropy(per_class: bool = False) -> MembershipAttack:
    """Returns the attack on the entropy of what a model says of a row, which is lower of members.

    Args:
      per_class: As for `loss`.

    Example:
      >>> entropy().signal
      'entropy'
    """
    return _threshold("entropy", per_class)


def modified_entropy(per_class: bool = False) -> MembershipAttack:
    """Returns the attack on the modified entropy of a row, which is lower of members.

    Args:
      per_class: As for `loss`; true in the paper.

    Example:
      >>> modified_entropy(per_class=True).needs
      ('in', 'out', 'classes')
    """
    return _threshold("modified_entropy", per_class)


def cosine() -> MembershipAttack:
    """Returns the attack on the cosine of an update and a row's gradient, higher of members.

    Example:
      >>> cosine().score(Observed.of(np.array([0.3, -0.1]))).tolist()
      [0.3, -0.1]
    """
    return _threshold("cosine", per_class=False)


def _threshold(signal: str, per_class: bool) -> MembershipAttack:
    per_class = checked("per_class", per_class, Field(False, bool))
    sign = sign_of(signal)

    def score(observed: Observed) -> np.ndarray:
        known = sign * observed.target.mean(-1)
        if per_class:
            known = known - _thresholds(observed, sign, signal)
        return lowest_where_unknown(known)

    return MembershipAttack(signal, score, ("in", "out", "classes") if per_class else ())


def _thresholds(observed: Observed, sign: float, signal: str) -> np.ndarray:
    """Returns float64[T], the threshold of each target's class."""
    if not len(observed.classes):
        raise ValueError(
            f"{signal}(per_class=True) needs the class of each target: give "
            f"Observed.of(classes=...), or use {signal}()."
        )
    names, of_class = np.unique(observed.classes, return_inverse=True)
    values = sign * observed.shadows.mean(-1)
    finite = np.isfinite(values)
    found = np.empty(len(names))
    for number, name in enumerate(names.tolist()):
        here = finite & (of_class == number)
        sides = (values[here & observed.members], values[here & ~observed.members])
        if not all(map(len, sides)):
            raise ValueError(
                f"{signal}(per_class=True): shadow models have {len(sides[0])} finite signals of "
                f"members of class {name} and {len(sides[1])} of others, and both are needed. "
                "Train models by a balanced design (fljax.audits.membership.designs), or use "
                f"{signal}()."
            )
        found[number] = best_threshold(*sides)
    return found[of_class]


def best_threshold(members: np.ndarray, others: np.ndarray) -> float:
    """Returns the value at which, and above which, to say "member", for the most balanced accuracy.

    It is one of the values; of equally good ones the lowest.

    Args:
      members, others: float64[n], float64[m] finite values, higher where membership is likelier.

    Example:
      >>> best_threshold(np.array([2.0, 3.0, 5.0]), np.array([0.0, 1.0, 4.0]))
      2.0
    """
    values = np.unique(np.concatenate([members, others]))
    hits = 1 - np.searchsorted(np.sort(members), values) / len(members)
    refused = np.searchsorted(np.sort(others), values) / len(others)
    return float(values[np.argmax(hits + refused)])
