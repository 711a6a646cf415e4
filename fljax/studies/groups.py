"""Groups: the trials of a sweep that one program can run side by side.

What the round program takes as arguments may differ within a group: the seed, every hyperparameter
of the algorithm, and who owns which rows of one copy of the data. Everything else is part of the
program, such as the model, the batch size, the cohort's size or the algorithm, and tells groups
apart, whether a trial's values name it or it follows from one of them.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fljax.config import resolve, to_plain, with_keys
from fljax.config.experiment import Experiment, make_dataset, make_experiment
from fljax.core.settings import DATA
from fljax.core.transforms import PipelineSpec
from fljax.data.dataset import Examples, FederatedDataset, Split
from fljax.studies.likeness import alike, makeup
from fljax.studies.trials import Trial, identity
from fljax.training.trials import TrialInputs


class Made(NamedTuple):
    """What a trial runs.

    Attributes:
      experiment: The experiment.
      program: What its round program is made of, apart from the data and from what the program
        takes as arguments; compared by `alike`.
    """

    experiment: Experiment
    program: Any


Make = Callable[[Trial], Made]


class Group(NamedTuple):
    """Trials that share one compilation.

    Attributes:
      trials: In the order of the sweep.
      experiment: That of the first trial; the others differ in their inputs alone.
      inputs: {number of the trial: TrialInputs}.
      datasets: Those that inputs refer to by their partition; all hold the same examples.
    """

    trials: tuple[Trial, ...]
    experiment: Experiment
    inputs: Mapping[int, TrialInputs]
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

    def make(trial: Trial) -> Made:
        own = resolve(with_values(config, trial))
        plain = to_plain(own)
        data = identity({name: plain[name] for name in DATA})
        if data not in loaded:
            loaded[data] = _sharing(make_dataset(own), loaded.values())
        experiment = make_experiment(own, loaded[data])
        arguments = {"seed", *experiment.hparams, *DATA}
        # resolved: with what references and defaults made of the trial's values
        return Made(experiment, {key: plain[key] for key in plain.keys() - arguments})

    return make


def from_function(make: Callable[[Trial], Experiment]) -> Make:
    """Returns what makes experiments of a user's function and takes apart what it returned."""

    def made(trial: Trial) -> Made:
        experiment = make(trial)
        values = {
            name: value
            for name, value in trial.values.items()
            if name not in {*experiment.hparams, *DATA}
        }
        options = {name: one for name, one in experiment.options.items() if name != "seed"}
        if isinstance(pipeline := options.get("pipeline"), PipelineSpec):
            options["pipeline"] = pipeline.build
        algorithm = experiment.algorithm._replace(hparams={})
        return Made(experiment, makeup((values, experiment.task, algorithm, options)))

    return made


def with_values(config, trial: Trial):
    """Returns a copy of a configuration with a trial's values and seed."""
    # with its references: what follows from another key follows from the trial's value
    own = copy.deepcopy(config)
    return with_keys(own, {**trial.values, "seed": trial.seed})


def _sharing(dataset: FederatedDataset, others: Iterable[FederatedDataset]) -> FederatedDataset:
    """Returns a data set that holds the examples of other ones where they are equal."""
    held = {id(split.examples): split.examples for one in others for split in _splits(one).values()}
    shared = {
        id(split.examples): next(
            (one for one in held.values() if _equal(one, split.examples)), split.examples
        )
        for split in _splits(dataset).values()
    }
    splits = {
        name: Split(shared[id(split.examples)], split.partition)
        for name, split in _splits(dataset).items()
    }
    return dataclasses.replace(dataset, **splits)


def _splits(dataset: FederatedDataset) -> dict[str, Split]:
    splits = {name: getattr(dataset, name) for name in ("train", "val", "test", "held_out")}
    return {name: split for name, split in splits.items() if split is not None}


def _equal(one: Examples, other: Examples) -> bool:
    if one.arrays is None or other.arrays is None or one.arrays.keys() != other.arrays.keys():
        return one is other
    return all(np.array_equal(values, other.arrays[name]) for name, values in one.arrays.items())


def grouped(trials: Sequence[Trial], make: Make) -> list[Group]:
    """Sorts trials into groups, in the order in which they first appear.

    Args:
      trials: Of the sweep.
      make: Makes the experiment of a trial.

    Raises:
      ValueError: For values that an experiment cannot be made of.
    """
    shapes: list[Any] = []
    members: list[list[tuple[Trial, Experiment]]] = []
    for trial in trials:
        made = make(trial)
        shape = _shape(trial, made)
        place = next((n for n, one in enumerate(shapes) if alike(one, shape)), len(shapes))
        if place == len(shapes):
            shapes.append(shape)
            members.append([])
        members[place].append((trial, made.experiment))
    return [_group(one) for one in members]


def _shape(trial: Trial, made: Made) -> tuple:
    """Returns what trials of one group have in common; compared by `alike`."""
    experiment, dataset = made.experiment, made.experiment.dataset
    return (
        dict(experiment.built_in),
        sorted(experiment.hparams),
        id(dataset.train.examples),
        (dataset.num_clients, dataset.num_classes, dataset.kind),
        makeup((dict(dataset.groups), dataset.preprocess)),
        made.program,
    )


def _group(members: Sequence[tuple[Trial, Experiment]]) -> Group:
    datasets: list[FederatedDataset] = []
    inputs = {}
    for trial, experiment in members:
        dataset = experiment.dataset
        if not any(dataset is known for known in datasets):
            datasets.append(dataset)
        partition = next(n for n, known in enumerate(datasets) if known is dataset)
        inputs[trial.number] = TrialInputs(trial.seed, experiment.hparams, partition)
    trials = tuple(trial for trial, _ in members)
    return Group(trials, members[0][1], inputs, tuple(datasets))
