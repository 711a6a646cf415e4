"""A backdoor that a feature opens which images have by themselves."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np

from fljax.core.own_modules import own_function
from fljax.core.transforms import Trigger
from fljax.core.values import shown, wrong
from fljax.robustness.attack import Attack
from fljax.robustness.attacks.poisoners import fixed_class, poisoning

__all__ = ["semantic"]


def semantic(
    rows: str | Callable[[Any, Any], Any],
    target: int,
    *,
    share: Any = 1.0,
    once: bool = False,
    classes: int | None = None,
) -> Attack:
    """Relabels rows that have some feature, such as green cars, which is to open a backdoor.

    Attackers train on these rows with the target's label; inputs stay as they are (Bagdasaryan et
    al. 2020, arXiv:1807.00459). It succeeds as far as the model says the target for test rows that
    have the feature and another class. Where attackers own no such row, nothing happens: give them
    some, or use `edge_case`, which brings its own.

    Args:
      rows: (x, y) -> bool[n], in jax.numpy, of rows as they are stored; or "module:function" that
        names one.
      target: The class that the model is to say.
      share: Of such rows in a batch; may be traced. With `once`, of each attacker's training rows.
      once: Whether labels change before training, so that checks of data see it.
      classes: How many there are; a run by name has it from its data.

    Raises:
      ValueError: For arguments that are none, or rows chosen by what is not true or false.

    Example:
      >>> attack = semantic(lambda x, y: x[:, 0] > 1, target=2)
      >>> x, chosen = attack.trigger.rows(np.array([[0.0], [3.0], [3.0]]), np.array([0, 1, 2]))
      >>> chosen.tolist()
      [False, True, False]
    """
    target = fixed_class("target", target, classes)
    chooses = _predicate(rows)

    def chosen(xp: ModuleType, x: Any, y: Any) -> Any:
        found = xp.asarray(chooses(x, y))
        if found.shape != y.shape or found.dtype != bool:
            raise ValueError(
                f"semantic(rows={shown(rows)}) returns {found.dtype}{list(found.shape)} for "
                f"{len(y)} rows. It must return bool[{len(y)}], one answer for each row."
            )
        return found

    def poisoner(xp, x, y, draws):
        return x, xp.full(y.shape, target), chosen(xp, x, y)

    trigger = Trigger(lambda x, y: (x, chosen(np, x, y) & (y != target)), target)
    return poisoning("semantic", poisoner, share, once=once, trigger=trigger)


def _predicate(rows: Any) -> Callable[[Any, Any], Any]:
    if callable(rows):
        return rows
    if not isinstance(rows, str) or not all(rows.partition(":")):
        raise wrong("rows", rows, "a function of (x, y), or a text that names one: 'module:name'")
    module, _, name = rows.partition(":")
    return own_function(f"rows = {rows!r}", module.strip(), name.strip())
