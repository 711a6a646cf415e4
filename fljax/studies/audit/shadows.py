"""Shadow federations: many runs of one configuration, each without some of the rows.

They are trials of one round program, and differ in their seed and in who owns which rows. An
attacker trains them to learn what a model is like that has seen a row, and one that has not; an
audit trains them and attacks each with the help of the others.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fljax.config.experiment import Experiment, with_protection
from fljax.core.algorithm import Variables
from fljax.data.dataset import FederatedDataset, Partition, Split, offsets_of
from fljax.privacy.protection import NOISE
from fljax.studies.groups import Group, check_budget, from_function, grouped
from fljax.studies.slots import Slots, affordable, check_group, host_memory_in_use
from fljax.studies.space import Trial
from fljax.training.options import RoundOptions, split_options

PyTree = Any


class Snapshot(NamedTuple):
    """Models of some shadow federations after one round.

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


def shadow_group(
    experiment: Experiment, targets: np.ndarray, members: np.ndarray, seed: int = 0
) -> Group:
    """Returns M federations as trials that share a program, each on the rows that are its own.

    Where the noise follows from a budget, all have that of the experiment's own rows, since what
    is released is attacked; on fewer rows it spends more than the budget.

    Args:
      experiment: What all of them do, before its protection is drawn; its evaluations are left out.
      targets: int[T] row numbers of the training examples, each owned by a client.
      members: bool[M, T], which targets each federation trains on. Rows that are no targets are
        trained on by all.
      seed: Federation m has the seed `seed + m`.

    Raises:
      ValueError: For targets that nobody owns, or federations that cannot share a program.
    """
    targets = np.asarray(targets)
    _check_targets(experiment.dataset, targets, members)
    names = {field.name for field in dataclasses.fields(RoundOptions)}
    plain = {name: value for name, value in experiment.options.items() if name in names}
    plain |= _found_noise(experiment)

    def make(trial: Trial) -> Experiment:
        own = shadow_dataset(experiment.dataset, targets, members[trial.number])
        options = plain | {"seed": trial.seed}
        return experiment._replace(dataset=own, options=options)

    trials = [Trial(number, {}, seed=seed + number) for number in range(len(members))]
    first, *others = grouped(trials, from_function(make))
    if others:
        raise ValueError(
            f"The {len(members)} federations of the audit are {len(others) + 1} programs: what "
            "they do depends on their seeds or rows, beyond the numbers that a program takes. "
            "Attack a configuration whose seeds share a program."
        )
    return first


def train_shadows(
    group: Group, look: Callable[[Snapshot], None], rounds: Sequence[int] = ()
) -> dict[str, Any] | None:
    """Trains M federations, each on the rows that are its own, and looks at their models.

    Args:
      group: The federations, as `shadow_group` makes them.
      look: Called with the models of several federations side by side, after each of the rounds
        and after the last one.
      rounds: Rounds after which models are looked at, beside the last one.

    Returns:
      What the first federation has spent of privacy, as the part "privacy" of its summary would say
      it; None where nothing is private.

    Raises:
      ValueError: For rounds that there are not, or federations that do not fit into memory.
    """
    options, run_options = split_options(group.experiment.options)
    check_group(group)
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


def shadow_dataset(
    dataset: FederatedDataset, targets: np.ndarray, is_member: np.ndarray
) -> FederatedDataset:
    """Returns a data set without the targets that are no members.

    Args:
      dataset: All rows.
      targets: int[T] row numbers of the training examples.
      is_member: bool[T].

    Example:
      >>> dataset = fljax.data.digits(partition='iid', num_clients=4)
      >>> rows = dataset.train.rows()[:10]
      >>> half = shadow_dataset(dataset, rows, np.arange(10) < 5)
      >>> dataset.train.num_rows - half.train.num_rows
      5
    """
    partition = dataset.train.partition
    kept = ~np.isin(partition.all_rows(), np.asarray(targets)[~is_member])
    sizes = np.bincount(partition.owners()[kept], minlength=partition.num_clients)
    own = Partition(offsets_of(sizes), partition.all_rows()[kept])
    return dataclasses.replace(dataset, train=Split(dataset.train.examples, own))


def _found_noise(experiment: Experiment) -> dict[str, Any]:
    """Returns the options of a noise that is known; nothing where no budget says what it is."""
    if experiment.options.get("target_epsilon") is None:
        return {}
    private = with_protection(experiment)
    check_budget(private)
    found = private.hparams.get(NOISE)
    return {} if found is None else {"target_epsilon": None, NOISE: found}


def _check_targets(dataset: FederatedDataset, targets: np.ndarray, members: np.ndarray) -> None:
    owned = np.isin(targets, dataset.train.partition.all_rows())
    if not owned.all():
        raise ValueError(
            f"targets[{int(np.argmin(owned))}] = {targets[np.argmin(owned)]} is a row that no "
            "client trains on. Take targets among dataset.train.rows()."
        )
    if members.shape[1:] != targets.shape or not len(members):
        raise ValueError(
            f"members has shape {list(members.shape)}, but must have a line for each federation "
            f"and a column for each of {len(targets)} targets."
        )


def _stops(rounds: Sequence[int], last: int) -> list[int]:
    """Returns the rounds after which models are looked at."""
    for round in rounds:
        if not 0 < round <= last:
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
        slots.train(stop - done)
        done = stop
        federation, active = slots.federation, slots.active
        models = [federation.variables_of(slot) for slot in active]
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *models)
        numbers = np.array([running.trial.number for running in active.values()])
        look(Snapshot(numbers, stop, stacked, federation.inputs.frozen))
        slots.take_records()
