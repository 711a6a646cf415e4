"""Poisons a share of the rows that hostile clients train on, in each batch or before training.

What a poisoner makes of rows is one function, which runs on batches in JAX and on a client's
training rows in NumPy.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fljax.core.transforms import BatchLink, Trigger
from fljax.core.values import FACTOR, Field, Interval, checked
from fljax.robustness.arguments import check_number, is_traced
from fljax.robustness.attack import Attack, is_hostile

__all__ = ["Poisoner", "check_class", "check_classes", "fixed_class", "poisoning"]

# (xp, x, y, draws float[n] from 0 to 1) -> (x', y', which rows can be poisoned bool[n]), where xp
# is jax.numpy or numpy, and x' is x where inputs stay as they are.
Poisoner = Callable[[ModuleType, Any, Any, Any], tuple[Any, Any, Any]]


class _Draws(NamedTuple):
    """Random numbers from 0 to 1 by which n rows are poisoned.

    Attributes:
      made: float[n], for the poisoner.
      chosen: float[n], whose least ones are poisoned.
      number: float[], which says how many these are.
    """

    made: Any
    chosen: Any
    number: Any


def poisoning(
    name: str, poisoner: Poisoner, share: Any, *, once: bool, trigger: Trigger | None = None
) -> Attack:
    """Returns the attack of clients that train on poisoned rows.

    Of n rows that can be poisoned, those of a batch or, once, those of a client, share x n are on
    average: the whole number below or above it, by chance, so that small shares of small batches
    are poisoned at times. Which rows is drawn in each step. Padding stays padding.

    Args:
      name: Of the attack, for messages.
      poisoner: What it makes of rows.
      share: Above 0 and at most 1; may be traced where batches are poisoned.
      once: Whether rows are poisoned before training.
      trigger: Of a backdoor.

    Raises:
      ValueError: For arguments that are none.

    Example:
      >>> zeros = lambda xp, x, y, draws: (x, 0 * y, y > 1)
      >>> attack = poisoning("zeros", zeros, 1.0, once=True)
      >>> attack.own_rows(np.ones(3), np.array([1, 2, 3]), np.random.default_rng(0))[1].tolist()
      [1, 0, 0]
    """
    check_number("share", share, FACTOR)
    once = checked("once", once, Field(False, bool))
    if not once:
        return Attack(batches=(_of_batches(name, poisoner, share),), trigger=trigger)
    share = checked("share", share, Field(1.0, float, FACTOR))  # data are made before any program

    def own_rows(x, y, rng):
        made, chosen = rng.random((2, len(y) + 1))
        draws = _Draws(made[:-1], chosen[:-1], chosen[-1])
        return _poisoned(np, name, poisoner, x, y, np.ones(len(y), bool), share, draws)

    return Attack(own_rows=own_rows, trigger=trigger)


def check_class(name: str, value: Any, classes: int | None) -> None:
    """Raises ValueError for what is no class, unless it is traced.

    Args:
      name: How the user calls it.
      value: What the user gave.
      classes: How many there are, 0 of a task without; None where that is not known.

    Raises:
      ValueError: Of a task without classes, for traced numbers too.

    Example:
      >>> check_class("target", 10, 10)
      Traceback (most recent call last):
      ValueError: target = 10 must be at least 0 and at most 9.
    """
    check_classes(classes)
    if not is_traced(value):
        fixed_class(name, value, classes)


def check_classes(classes: int | None) -> None:
    """Raises ValueError where there are no classes, as in regression.

    Args:
      classes: As of `check_class`.

    Example:
      >>> check_classes(0)
      Traceback (most recent call last):
      ValueError: the task has no classes, and no label can go wrong: use an attack on messages, \
such as sign_flip, or say how many classes its targets are, such as classes=10
    """
    if classes == 0:
        raise ValueError(
            "the task has no classes, and no label can go wrong: use an attack on messages, such "
            "as sign_flip, or say how many classes its targets are, such as classes=10"
        )


def fixed_class(name: str, value: Any, classes: int | None) -> int:
    """Returns a class that the rows depend on by which an attack is judged: no traced number.

    Args:
      name, value, classes: As of `check_class`.

    Raises:
      ValueError: For what is no class.

    Example:
      >>> fixed_class("target", 3.0, 10)
      3
    """
    check_classes(classes)
    high = Interval().high if classes is None else classes - 1
    return checked(name, value, Field(0, int, Interval(0, high)))


def _of_batches(name: str, poisoner: Poisoner, share: Any) -> BatchLink:
    def apply(batch, job, key):
        x, y = batch["x"], batch["y"]
        hostile = batch["mask"] & is_hostile(job)
        # one stream each, so that the padding of wider batches changes no row's draw
        made, chosen, number = jax.random.split(key, 3)
        draws = _Draws(
            jax.random.uniform(made, hostile.shape),
            jax.random.uniform(chosen, hostile.shape),
            jax.random.uniform(number),
        )
        x, y = _poisoned(jnp, name, poisoner, x, y, hostile, share, draws)
        return {**batch, "x": x, "y": y}

    return BatchLink(apply)


def _poisoned(
    xp: ModuleType,
    name: str,
    poisoner: Poisoner,
    x: Any,
    y: Any,
    real: Any,
    share: Any,
    draws: _Draws,
) -> tuple[Any, Any]:
    """Returns (x', y'), rows of which a share is poisoned.

    Args:
      xp: numpy or jax.numpy.
      name, poisoner, share: As for `poisoning`.
      x, y: The rows.
      real: bool[n], the rows that may be touched.
      draws: Of the rows.
    """
    _check_labels(name, y)
    new_x, new_y, can = poisoner(xp, x, y, draws.made)
    can = can & real
    chosen = can
    if is_traced(share) or share < 1:
        order = xp.argsort(xp.where(can, draws.chosen, 2.0))
        rank = xp.argsort(order)
        # the mean of what is rounded up by chance is the number itself
        chosen = can & (rank < xp.floor(share * can.sum() + draws.number))
    if new_x is not x:
        x = xp.where(chosen.reshape(-1, *[1] * (x.ndim - 1)), new_x, x)
    return x, xp.where(chosen, new_y, y).astype(y.dtype)


def _check_labels(name: str, y: Any) -> None:
    """Raises ValueError for targets that are not one class of each row."""
    if not hasattr(y, "dtype") or y.ndim != 1 or y.dtype.kind not in "iub":
        found = f"{y.dtype}{list(y.shape)}" if hasattr(y, "dtype") else f"a {type(y).__name__}"
        raise ValueError(
            f"{name} changes the class of single rows, and the targets of a batch are {found}. Use "
            "data of kind 'classification', or an attack on messages."
        )
