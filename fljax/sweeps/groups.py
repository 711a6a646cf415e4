"""Groups: the trials of a sweep that one program can run side by side.

What the round program takes as arguments may differ within a group: the seed, every hyperparameter
of the algorithm, and who owns which rows of one copy of the data. What shapes the program, such as
the model, the batch size, the cohort's size or the algorithm, tells groups apart.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from fljax.config import resolve, to_plain
from fljax.config.schema import DATA_KEYS
from fljax.data.dataset import FederatedDataset, Split
from fljax.experiment import Experiment, make_dataset, make_experiment
from fljax.sources import Source
from fljax.sweeps.trials import Trial, identity

Make = Callable[[Trial], Experiment]


class Group(NamedTuple):
    """Trials that share one compilation.

    Attributes:
      trials: In the order of the sweep.
      experiment: That of the first trial; the others differ in their sources alone.
      sources: {number of the trial: Source}.
      datasets: Those that sources refer to by their partition; all hold the same examples.
    """

    trials: tuple[Trial, ...]
    experiment: Experiment
    sources: Mapping[int, Source]
    datasets: tuple[FederatedDataset, ...]

    @property
    def num_rounds(self) -> int:
        """Rounds of each trial."""
        return self.experiment.options["num_rounds"]


def from_config(config) -> Make:
    """Returns what makes experiments of a configuration and the values of a trial.

    Data sets are loaded once, and those that differ in their partition share their examples.
    """
    loaded: dict[str, FederatedDataset] = {}

    def make(trial: Trial) -> Experiment:
        own = resolve(with_values(config, trial))
        plain = to_plain(own)
        data = identity({name: plain[name] for name in DATA_KEYS})
        if data not in loaded:
            loaded[data] = _sharing(make_dataset(own), loaded.values())
        return make_experiment(own, loaded[data])

    return make


def with_values(config, trial: Trial):
    """Returns a copy of a configuration with a trial's values and seed."""
    # with its references: what follows from another key follows from the trial's value
    own = copy.deepcopy(config)
    for name, value in trial.values.items():
        *parents, last = name.split(".")
        part = own
        for parent in parents:
            part = part[parent]
        part[last] = value
    own.seed = trial.seed
    return own


def _sharing(dataset: FederatedDataset, others) -> FederatedDataset:
    """Returns a data set that holds the examples of another one where they are equal."""
    arrays = dataset.train.examples.arrays
    for other in others:
        theirs = other.train.examples.arrays
        if arrays is None or theirs is None or arrays.keys() != theirs.keys():
            continue
        if not all(np.array_equal(arrays[name], theirs[name]) for name in arrays):
            continue
        examples, val = other.train.examples, dataset.val
        if val is not None and val.examples is dataset.train.examples:
            val = Split(examples, val.partition)
        train = Split(examples, dataset.train.partition)
        return dataclasses.replace(dataset, train=train, val=val)
    return dataset


def grouped(trials: Sequence[Trial], make: Make) -> list[Group]:
    """Sorts trials into groups, in the order in which they first appear.

    Args:
      trials: Of the sweep.
      make: Makes the experiment of a trial.

    Raises:
      ValueError: For values that an experiment cannot be made of.
    """
    members: dict[str, list[tuple[Trial, Experiment]]] = {}
    for trial in trials:
        experiment = make(trial)
        members.setdefault(_shape(trial, experiment), []).append((trial, experiment))
    return [_group(one) for one in members.values()]


def _shape(trial: Trial, experiment: Experiment) -> str:
    """Returns what trials of one group have in common."""
    hparams = experiment.hparams
    free = {*hparams, *DATA_KEYS}
    shaping = {name: value for name, value in trial.values.items() if name not in free}
    train = experiment.dataset.train
    return identity(
        shaping
        | ({"seed": trial.seed} if experiment.seeded else {})
        | {"hyperparameters": sorted(hparams)}
        | {"examples": id(train.examples), "clients": train.partition.num_clients}
    )


def _group(members: Sequence[tuple[Trial, Experiment]]) -> Group:
    datasets: list[FederatedDataset] = []
    sources = {}
    for trial, experiment in members:
        dataset = experiment.dataset
        if not any(dataset is known for known in datasets):
            datasets.append(dataset)
        partition = next(n for n, known in enumerate(datasets) if known is dataset)
        sources[trial.number] = Source(trial.seed, experiment.hparams, partition)
    trials = tuple(trial for trial, _ in members)
    return Group(trials, members[0][1], sources, tuple(datasets))
