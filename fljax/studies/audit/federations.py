"""Federations side by side: trials of one program, whose models somebody looks at as they train."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fljax.core.algorithm import Variables
from fljax.studies.groups import Group, Make, grouped
from fljax.studies.slots import Slots, affordable, check_group, host_memory_in_use
from fljax.studies.space import Trial
from fljax.training.options import split_options

PyTree = Any


class Snapshot(NamedTuple):
    """Models of some federations after one round.

    Attributes:
      numbers: int64[S] which federations these are.
      round: Completed rounds.
      models: `Variables`, leaves [S, ...].
      frozen: Constants of the models.
    """

    numbers: np.ndarray
    round: int
    models: Variables
    frozen: PyTree


def one_program(trials: Sequence[Trial], make: Make) -> Group:
    """Returns federations as the trials of one group.

    Args:
      trials: One for each federation.
      make: Makes the experiment of a trial.

    Raises:
      ValueError: If they cannot share a program, or cannot train side by side.
    """
    group, *others = grouped(trials, make)
    if others:
        raise ValueError(
            f"The {len(trials)} federations of the audit are {len(others) + 1} programs: what "
            "they do depends on their seeds or rows, beyond the numbers that a program takes. "
            "Attack a configuration whose seeds share a program."
        )
    check_group(group)
    return group


def train_federations(
    group: Group, look: Callable[[Snapshot], None], rounds: Sequence[int] = ()
) -> dict[str, Any] | None:
    """Trains the federations of a group, and looks at their models.

    Args:
      group: The federations, as `one_program` returns them.
      look: Called with the models of several federations side by side, after each of the rounds
        and after the last one.
      rounds: Rounds after which models are looked at, beside the last one; 0 for those from which
        the first one starts.

    Returns:
      What the first federation has spent of privacy, as the part "privacy" of its summary would say
      it; None where nothing is private.

    Raises:
      ValueError: For rounds that there are not, or federations that do not fit into memory.
    """
    options, run_options = split_options(group.experiment.options)
    stops = _stops(rounds, options.num_rounds)
    count = affordable(group, options, host_memory_in_use())
    slots: Slots | None = None
    spent = None
    for begin in range(0, len(group.trials), count):
        trials = group.trials[begin : begin + count]
        if slots is None:
            slots = Slots(group, trials, options, run_options)
        else:
            _restart(slots, trials, group)
        _run(slots, stops, look)
        if begin == 0 and (ledger := slots.active[0].ledger) is not None:
            spent = ledger.summary(options.num_rounds)
    return spent


def _stops(rounds: Sequence[int], last: int) -> list[int]:
    """Returns the rounds after which models are looked at."""
    for round in rounds:
        if not 0 <= round <= last:
            raise ValueError(f"rounds has {round}, but federations train {last} rounds.")
    return sorted({*rounds, last})


def _restart(slots: Slots, trials: Sequence[Trial], group: Group) -> None:
    """Starts the next federations; slots that are left over rest."""
    slots.start(dict(enumerate(trials)), group)
    for slot in range(len(trials), len(slots.slots)):
        slots.slots[slot] = None


def _run(slots: Slots, stops: Sequence[int], look: Callable[[Snapshot], None]) -> None:
    """Trains the federations in the slots to their ends, and looks at them."""
    done = 0
    for stop in stops:
        if stop > done:
            slots.train(stop - done)
        done = stop
        federation, active = slots.federation, slots.active
        models = [federation.variables_of(slot) for slot in active]
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *models)
        numbers = np.array([running.trial.number for running in active.values()])
        look(Snapshot(numbers, stop, stacked, federation.inputs.frozen))
        slots.take_records()
