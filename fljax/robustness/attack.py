"""An attack: what hostile clients do to their batches, their messages, or with those of all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from fljax.core.transforms import BatchLink, CohortLink, UplinkLink


class Trigger(NamedTuple):
    """The test rows on which a backdoor opens, and what it makes the model say.

    Attributes:
      rows: (x, y) -> (x', chosen bool[n]), in NumPy: the rows with their trigger, and which of them
        tell: rows whose true class is the target's do not.
      target: The class that the attacker wants.
    """

    rows: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
    target: int


class Attack(NamedTuple):
    """What hostile clients do.

    Links leave clients alone that are no attackers: they read `Job.attacker`, `Cohort.attackers`.

    Attributes:
      batches: Transforms of what attackers train on.
      uplink: Transforms of what each attacker sends, which stand before compression; they need no
        other client, so that sums still stream.
      cohort: Transforms of all updates at once, of attackers that see the honest ones.
      trigger: Of a backdoor, the rows by which its success is judged; None of other attacks.
      own_rows: (x, y, rng) -> (x', y') in NumPy, what attackers hold instead of their training rows
        from the start; None where data stay as they are.
    """

    batches: tuple[BatchLink, ...] = ()
    uplink: tuple[UplinkLink, ...] = ()
    cohort: tuple[CohortLink, ...] = ()
    trigger: Trigger | None = None
    own_rows: Callable[[Any, Any, np.random.Generator], tuple[Any, Any]] | None = None
