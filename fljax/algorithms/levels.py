"""Levels: how much of a model each client trains, as weak devices and strong ones can.

A level is a number from 0 on, the place of a share in a list. Who has which is given client by
client, or drawn: once for all, so that exactly the wanted shares of the clients have each level, or
in each round anew, as HeteroFL's "dynamic" does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fljax.core.algorithm import Job
from fljax.core.gradients import LocalTask
from fljax.core.per_client import check_length
from fljax.core.permutations import keyed_permutation
from fljax.core.settings import ALGORITHM
from fljax.core.values import (
    FACTOR,
    POSITIVE,
    Field,
    Interval,
    checked,
    sequence,
    whole_numbers,
    wrong,
)

# Tells the draws of levels from all others of a job's key.
_PURPOSE = 0x1E7E1


def numbers(name: str, values: Any, within: Interval) -> tuple[float, ...]:
    """Returns a list of numbers, or of a text with commas between them.

    Raises:
      ValueError: For anything else, or a number out of range; the message names its place.

    Example:
      >>> numbers("rates", "1, 0.5, 0.25", Interval(0, 1, low_open=True))
      (1.0, 0.5, 0.25)
    """
    what = "numbers, as in '1, 0.5, 0.25'"
    given = values
    if isinstance(values, str):
        try:
            values = [float(text) for text in values.split(",")]
        except ValueError:
            raise wrong(name, given, what) from None
    if isinstance(values, int | float):
        values = (values,)
    field = Field(None, float, within)
    found = [checked(f"{name}[{n}]", v, field) for n, v in enumerate(sequence(name, values, what))]
    if not found:
        raise wrong(name, given, f"at least one of {what}")
    return tuple(found)


def rates_of(rates: Any) -> tuple[float, ...]:
    """Returns shares of a model, each above 0 and at most 1."""
    return numbers("rates", rates, FACTOR)


class Levels(NamedTuple):
    """The level of each client.

    Attributes:
      shares: Of the clients, for each level; they sum to 1.
      dynamic: Whether levels are drawn in each round anew.
      seed: Of the draw that is once for all.
      given: The level of each client, or None.
    """

    shares: tuple[float, ...]
    dynamic: bool
    seed: int
    given: tuple[int, ...] | None

    def of(self, task: LocalTask) -> Callable[[Job], jax.Array]:
        """Returns a function (job) -> int32, the level of its client.

        Args:
          task: Whose population has levels.

        Raises:
          ValueError: If levels are given, and not one for each client.
        """
        bounds = np.cumsum(self.shares)[:-1]
        if self.dynamic:
            return lambda job: _place(
                jax.random.uniform(jax.random.fold_in(job.key, _PURPOSE)), bounds
            )
        population = task.population
        if self.given is not None:
            if population is not None:
                check_length("levels", np.asarray(self.given), population.num_clients)
            table = np.asarray(self.given, np.int8 if len(self.shares) < 128 else np.int32)
            return lambda job: jnp.asarray(table)[jnp.maximum(job.client, 0)].astype(jnp.int32)
        num_clients = 1 if population is None else population.num_clients
        counts = np.rint(bounds * num_clients).astype(np.int32)

        def drawn(job: Job) -> jax.Array:
            client, key = jnp.maximum(job.client, 0), jax.random.key(self.seed)
            return _place(keyed_permutation(key, client, num_clients), counts)

        return drawn


def levels_of(num_levels: int, levels: Any, shares: Any, dynamic: bool, seed: int) -> Levels:
    """Returns who has which level.

    Args:
      num_levels: How many there are.
      levels: int[N] of each client, or None.
      shares: Ratios of the clients that have each level: numbers, or a text of some; None for 1.
      dynamic: Whether levels are drawn in each round anew.
      seed: Of the draw that is once for all.

    Raises:
      ValueError: For numbers out of range, or levels that are given as well as drawn.

    Example:
      >>> levels_of(2, None, "1, 3", False, 0).shares
      (0.25, 0.75)
    """
    dynamic = checked("dynamic", dynamic, Field(False, bool))
    seed = checked("level_seed", seed, ALGORITHM["level_seed"]._replace(optional=False))
    given = None if levels is None else _checked_levels(levels, num_levels)
    if given is not None and (shares is not None or dynamic):
        raise ValueError(
            "levels says who has which; shares and dynamic would draw them. Leave out the one or "
            "the others."
        )
    wanted = (1.0,) * num_levels if shares is None else numbers("shares", shares, POSITIVE)
    if len(wanted) != num_levels:
        raise ValueError(
            f"shares has {len(wanted)} entries for {num_levels} levels. Give one for each."
        )
    total = sum(wanted)
    return Levels(tuple(share / total for share in wanted), dynamic, seed, given)


def _place(value: jax.Array, bounds: Sequence[float]) -> jax.Array:
    """Returns how many bounds a value has reached."""
    return (value >= jnp.asarray(bounds, value.dtype)).sum(dtype=jnp.int32)


def _checked_levels(levels: Any, num_levels: int) -> tuple[int, ...]:
    found = whole_numbers("levels", levels)
    if not found.size or found.min() < 0 or found.max() >= num_levels:
        raise wrong("levels", levels, f"one number from 0 to {num_levels - 1} for each client")
    return tuple(found.tolist())
