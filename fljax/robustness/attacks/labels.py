"""Flips labels: of all that hostile clients train on, or of their own rows before training."""

from __future__ import annotations

from typing import Any

import numpy as np

from fljax.core.values import Field, Interval, checked
from fljax.robustness.attack import Attack
from fljax.robustness.attacks.poisoners import check_class, check_classes, poisoning

__all__ = ["label_flip", "poisoned_labels"]


def label_flip(
    *, source: Any = None, target: Any = None, share: Any = 1.0, classes: int | None = None
) -> Attack:
    """Trains on wrong labels, which are made in each batch.

    Class y of C becomes C - 1 - y (Fang et al. 2020, arXiv:1911.11815). With a target, every label
    becomes that one; with a source too, those of one class do, as in Tolpegin et al. 2020
    (arXiv:2007.08432).

    Args:
      source: The class whose labels go wrong; None for all. May be traced.
      target: What becomes of them; None is C - 1 - y. May be traced.
      share: Of the rows of a batch that can go wrong; drawn anew in each step. May be traced.
      classes: C; a run by name has it from its task.

    Raises:
      ValueError: For classes that there are not, or a source without a target.

    Example:
      >>> link, = label_flip(classes=10).batches
      >>> job = fljax.core.algorithm.blank_job(None)._replace(attacker=jnp.bool_(True))
      >>> batch = {"x": jnp.ones((3, 2)), "y": jnp.array([0, 3, 9]), "mask": jnp.arange(3) < 2}
      >>> link.apply(batch, job, jax.random.key(0))["y"].tolist()
      [9, 6, 9]
    """
    return _flipping("label_flip", source, target, classes, share, once=False)


def poisoned_labels(
    share: float = 1.0,
    *,
    source: int | None = None,
    target: int | None = None,
    classes: int | None = None,
) -> Attack:
    """Holds rows with wrong labels from the start.

    Checks of data see them, and so does whatever else reads what clients own. Labels go wrong as
    those of `label_flip` do.

    Args:
      share: Of each attacker's training rows that can go wrong.
      source, target, classes: As of `label_flip`.

    Raises:
      ValueError: For classes that there are not, or a source without a target.

    Example:
      >>> attack = poisoned_labels(target=7)
      >>> attack.own_rows(np.ones((2, 3)), np.array([1, 2]), np.random.default_rng(0))[1].tolist()
      [7, 7]
    """
    return _flipping("poisoned_labels", source, target, classes, share, once=True)


def _flipping(
    name: str, source: Any, target: Any, classes: int | None, share: Any, *, once: bool
) -> Attack:
    """Returns the attack that makes labels wrong."""
    check_classes(classes)
    classes = checked("classes", classes, Field(None, int, Interval(2), optional=True))
    if source is not None and target is None:
        raise ValueError(
            f"source = {source} says which labels go wrong, and nothing says what becomes of them: "
            f"{name}(source={source}, target=...)"
        )
    if target is None and classes is None:
        raise ValueError(f"it needs the number of classes, such as {name}(classes=10)")
    for which, value in (("source", source), ("target", target)):
        if value is not None:
            check_class(which, value, classes)

    def poisoner(xp, x, y, draws):
        wrong = classes - 1 - y.astype(int) if target is None else xp.full(y.shape, target)
        return x, wrong, xp.ones(y.shape, bool) if source is None else y == source

    def relabelled(y):
        _, wrong, can = poisoner(np, None, y, None)
        return np.where(can, wrong, y)

    return poisoning(name, poisoner, share, once=once)._replace(labels=(relabelled,))
