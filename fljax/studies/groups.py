"""Groups: the trials of a study that one program can run side by side.

What the round program takes as arguments may differ within a group: the seed, every hyperparameter
of the algorithm, and who owns which rows of one copy of the data. Everything else is part of the
program, such as the model, the batch size, the cohort's size or the algorithm, and tells groups
apart, whether a trial's values name it or it follows from one of them.

Functions that are made anew for every trial are never the same object, so a program is told by a
key: two functions do the same where they have the same code and what they close over has the same
key. What nothing is known of is only like itself: so trials may be told apart for nothing, which
costs a compilation, but are never put together by mistake.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from types import FunctionType, MethodType
from typing import Any, NamedTuple

import jax
import numpy as np

from fljax.compression.names import without_numbers
from fljax.config import ConfigError, resolve, to_plain, with_keys
from fljax.config.experiment import (
    Experiment,
    compression_names,
    make_dataset,
    make_experiment,
    with_protection,
)
from fljax.core.algorithm import AlgorithmSpec
from fljax.core.settings import DATA
from fljax.core.transforms import PipelineSpec
from fljax.data.dataset import ROLES, Examples, FederatedDataset, Split
from fljax.privacy import names as mechanisms
from fljax.privacy.mechanism import Mechanism
from fljax.robustness import names as robust
from fljax.studies.space import Trial, identity
from fljax.training.options import split_options
from fljax.training.preflight import check_judging
from fljax.training.privacy_records import ledger_of
from fljax.training.trials import TrialInputs

Variants = Mapping[str, Mapping[str, Any]]
# Keys of a configuration that a single run alone reads, or a study as a whole.
_UNREAD = ("baselines", "checkpoint_every", "keep_checkpoints", "wandb", "tensorboard", "mlflow")


class Made(NamedTuple):
    """The experiment of a trial, and its program's key.

    Attributes:
      experiment: The experiment.
      key: Of its round program, apart from the data and from what the program takes as arguments;
        compared by `same_key`.
    """

    experiment: Experiment
    key: Any


Make = Callable[[Trial], Made]


class Group(NamedTuple):
    """Trials that share one compilation.

    Attributes:
      trials: In the order of the study.
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


class Groups:
    """Finds the group of a trial, listed or proposed.

    A trial that was not listed joins the newest group if it can run in its program on its data, and
    starts a group of its own otherwise.

    Args:
      make: Makes the experiment of a trial.
      groups: Of the trials that were listed.
    """

    def __init__(self, make: Make, groups: Sequence[Group] = ()):
        self._make = make
        self._groups = list(groups)
        self._place = {
            trial.number: place for place, group in enumerate(groups) for trial in group.trials
        }

    def group_of(self, trial: Trial) -> Group:
        """Returns a trial's group, with the trials that joined it so far.

        Raises:
          ValueError: For values that no experiment can be made of.
        """
        if trial.number not in self._place:
            if not (self._groups and self._joins(trial)):
                self._groups += grouped([trial], self._make)
            self._place[trial.number] = len(self._groups) - 1
        return self._groups[self._place[trial.number]]

    def keep(self, trials: Collection[int]) -> None:
        """Forgets trials that were proposed, but for these numbers: they may be proposed anew."""
        self._place = {number: self._place[number] for number in trials if number in self._place}

    def _joins(self, trial: Trial) -> bool:
        """Takes a trial in to the newest group, if one program can run both."""
        newest = self._groups[-1]
        pair, *others = grouped([newest.trials[0], trial], self._make)
        # a program is built for the divisions of the data that its first trials have
        if others or len(pair.datasets) > 1:
            return False
        self._groups[-1] = newest._replace(
            trials=(*newest.trials, trial),
            inputs={**newest.inputs, trial.number: pair.inputs[trial.number]},
        )
        return True


def same_program(group: Group, other: Group) -> bool:
    """Returns whether two groups are one, before and after trials joined it."""
    return group.experiment is other.experiment


def from_config(config, variants: Variants | None = None, together: Sequence[str] = ()) -> Make:
    """Returns what makes experiments of a configuration and what a trial changes in it.

    Data sets are loaded once, and those that differ in their partition share their examples.
    Attacks that are `together` are one program, of all of them, that is told which.
    """
    loaded: dict[str, FederatedDataset] = {}

    def make(trial: Trial) -> Made:
        own = resolved(config, trial, variants)
        if own.attack in together:
            own.attack = f"one_of({together.index(own.attack)}, {tuple(together)!r})"
        plain = to_plain(own)
        data = identity({name: plain[name] for name in DATA})
        if data not in loaded:
            with _named(trial, variants):
                loaded[data] = _sharing(make_dataset(own), loaded.values())
        varied = trial.overrides(variants or {})
        with _named(trial, variants):
            experiment = make_experiment(own, loaded[data], traced=varied)
        # resolved: with what references and defaults made of the trial's values
        plain |= without_numbers(compression_names(own), experiment.hparams)
        plain |= {
            key: robust.without_numbers(key, plain[key], experiment.hparams)
            for key in ("aggregator", "attack")
        }
        plain["privacy"] = _without_numbers(plain["privacy"], experiment.hparams)
        arguments = {"seed", "algorithm", "target_epsilon", *experiment.hparams, *DATA}
        values = {key: plain[key] for key in plain.keys() - arguments}
        return Made(experiment, key_of((values, _algorithm_of(experiment))))

    return make


def resolved(config, trial: Trial, variants: Variants | None = None):
    """Returns a trial's configuration, checked and filled in.

    Raises:
      ConfigError: For a configuration that is wrong, or what trials do not read.
    """
    changes = trial.overrides(variants or {})
    if unread := [key for key in changes if str(key).partition(".")[0] in _UNREAD]:
        raise ConfigError(
            f"{unread[0]} differs between the trials of a study, which do not read it: they run no "
            "baselines and leave no directories of their own. Leave it out of variants and axes."
        )
    with _named(trial, variants):
        return resolve(with_values(config, trial, variants))


@contextlib.contextmanager
def _named(trial: Trial, variants: Variants | None) -> Iterator[None]:
    """Names the variant in errors over what it sets."""
    try:
        yield
    except ValueError as error:
        names = [str(key).rpartition(".")[2] for key in (variants or {}).get(trial.variant, ())]
        if not any(name in str(error) for name in names):
            raise
        kind = type(error) if isinstance(error, ConfigError) else ValueError
        raise kind(f"variants[{trial.variant!r}]: {error}") from error


def from_function(make: Callable[[Trial], Experiment], variants: Variants | None = None) -> Make:
    """Returns what makes experiments of a user's function and takes apart what it returned.

    The function is given trials whose values hold what their variants change as well.
    """

    def made(trial: Trial) -> Made:
        trial = trial._replace(values=trial.overrides(variants or {}))
        given = make(trial)
        experiment = with_protection(given)
        arguments = {"target_epsilon", *experiment.hparams, *DATA}
        values = {name: value for name, value in trial.values.items() if name not in arguments}
        arguments = {"seed", "target_epsilon", *experiment.hparams}
        options = {name: value for name, value in given.options.items() if name not in arguments}
        if "privacy" in options:
            options["privacy"] = _without_numbers(options["privacy"], experiment.hparams)
        if isinstance(pipeline := options.get("pipeline"), PipelineSpec):
            options["pipeline"] = pipeline.build
        algorithm = _algorithm_of(experiment)
        return Made(experiment, key_of((values, experiment.task, algorithm, options)))

    return made


def _algorithm_of(experiment: Experiment) -> AlgorithmSpec:
    """Returns a trial's algorithm without its numbers, once they are known to have an effect."""
    check_judging(experiment.algorithm, experiment.options.get("eval_personal", 0))
    return experiment.algorithm._replace(hparams={}, judging={})


def _without_numbers(privacy: Any, traced: Collection[str]) -> Any:
    """Returns what protects clients without the numbers that a program takes as arguments."""
    if isinstance(privacy, Mechanism):
        return privacy._replace(hparams={})
    return mechanisms.without_numbers(privacy, traced) if isinstance(privacy, str) else privacy


def with_values(config, trial: Trial, variants: Variants | None = None):
    """Returns a copy of a configuration with what a trial changes in it, and its seed."""
    # with its references: what follows from another key follows from the trial's value
    own = copy.deepcopy(config)
    return with_keys(own, {**trial.overrides(variants or {}), "seed": trial.seed})


def check_keys(config, variants: Variants) -> None:
    """Raises ConfigError for keys of variants that a configuration does not have."""
    for name in variants:
        trial = Trial(0, {}, variant=name)
        with _named(trial, variants):
            with_values(config, trial, variants)


def _sharing(dataset: FederatedDataset, others: Iterable[FederatedDataset]) -> FederatedDataset:
    """Returns a data set that holds the examples of other ones where they are equal."""
    held = {
        id(split.examples): split.examples for other in others for split in _splits(other).values()
    }
    shared = {
        id(split.examples): next(
            (examples for examples in held.values() if _equal(examples, split.examples)),
            split.examples,
        )
        for split in _splits(dataset).values()
    }
    splits = {
        name: Split(shared[id(split.examples)], split.partition)
        for name, split in _splits(dataset).items()
    }
    return dataclasses.replace(dataset, **splits)


def _splits(dataset: FederatedDataset) -> dict[str, Split]:
    splits = {name: getattr(dataset, name) for name in ROLES}
    return {name: split for name, split in splits.items() if split is not None}


def _equal(examples: Examples, other: Examples) -> bool:
    mine, others = examples.arrays, other.arrays
    if mine is None or others is None or jax.tree.structure(mine) != jax.tree.structure(others):
        return examples is other
    return all(map(np.array_equal, jax.tree.leaves(mine), jax.tree.leaves(others)))


def grouped(trials: Sequence[Trial], make: Make) -> list[Group]:
    """Sorts trials into groups, in the order in which they first appear.

    Args:
      trials: Of the study.
      make: Makes the experiment of a trial.

    Raises:
      ValueError: For values that an experiment cannot be made of.
    """
    keys: list[Any] = []
    members: list[list[tuple[Trial, Experiment]]] = []
    for trial in trials:
        made = make(trial)
        key = _program_key(made)
        place = next((n for n, known in enumerate(keys) if same_key(known, key)), len(keys))
        if place == len(keys):
            keys.append(key)
            members.append([])
        members[place].append((trial, made.experiment))
    return [_group(pairs) for pairs in members]


def _program_key(made: Made) -> tuple:
    """Returns what trials of one group have in common; compared by `same_key`."""
    experiment, dataset = made.experiment, made.experiment.dataset
    return (
        dict(experiment.built_in),
        sorted(experiment.hparams),
        id(dataset.train.examples),
        (dataset.num_clients, dataset.root, dataset.num_classes, dataset.kind),
        key_of((dict(dataset.groups), dataset.preprocess)),
        made.key,
    )


def _group(members: Sequence[tuple[Trial, Experiment]]) -> Group:
    datasets: list[FederatedDataset] = []
    inputs = {}
    for trial, experiment in members:
        check_budget(experiment)
        dataset = experiment.dataset
        if not any(dataset is known for known in datasets):
            datasets.append(dataset)
        partition = next(n for n, known in enumerate(datasets) if known is dataset)
        inputs[trial.number] = TrialInputs(trial.seed, experiment.hparams, partition)
    trials = tuple(trial for trial, _ in members)
    return Group(trials, members[0][1], inputs, tuple(datasets))


def check_budget(experiment: Experiment) -> None:
    """Raises ValueError for a budget of privacy that is spent before a trial's last round."""
    options, _ = split_options(experiment.options)
    ledger = ledger_of(options, experiment.hparams)
    if ledger is None or (last := ledger.last_round(options.num_rounds)) == options.num_rounds:
        return
    noise = ledger.guarantee.noise_multiplier
    with_noise, instead = "", ""
    if noise is not None:
        with_noise = f" with noise_multiplier = {noise:g}"
        instead = ", or leave noise_multiplier unset, which finds the one for all rounds"
    raise ValueError(
        f"target_epsilon = {ledger.target_epsilon:g} is spent after {last} of {options.num_rounds} "
        f"rounds{with_noise}, and trials of a sweep train all their rounds. Set num_rounds = "
        f"{last}{instead}."
    )


def part_of(groups: Sequence[Group], rank: int, count: int) -> list[Group]:
    """Returns a process's part: as many rounds as the others, in as few groups as that allows."""
    total = sum(group.num_rounds * len(group.trials) for group in groups)
    part, done = [], 0
    for group in groups:
        trials = []
        for trial in group.trials:
            # the middle of a trial decides: every trial has one place
            place = (done + group.num_rounds / 2) * count / total
            if int(place) == rank:
                trials.append(trial)
            done += group.num_rounds
        if trials:
            part.append(group._replace(trials=tuple(trials)))
    return part


def key_of(value: Any) -> Any:
    """Returns the key of a value: what it does, taken apart so that two of them can be compared.

    Functions are their code, defaults and what they close over; containers their entries, of NumPy
    arrays the numbers. Anything else stands for itself and compares as its class does, arrays on a
    device by identity. What functions read from globals is not seen.

    The result may hold identities, so `value` has to outlive it.
    """
    return _key_of(value, ())


def same_key(key: Any, other: Any) -> bool:
    """Returns whether two results of `key_of` are equal; what refuses to be compared is not."""
    try:
        return bool(key == other)
    except (TypeError, ValueError):
        return False


def _key_of(value: Any, around: tuple) -> Any:
    """Returns the key of a value that lies within others."""
    for depth, outer in enumerate(around):
        if outer is value and isinstance(value, FunctionType):
            return "recursion", depth
    inside = functools.partial(_key_of, around=(*around, value))
    match value:
        case FunctionType():
            cells = [_content(cell) for cell in value.__closure__ or ()]
            parts = (value.__defaults__, value.__kwdefaults__, cells)
            return FunctionType, value.__code__, id(value.__globals__), *map(inside, parts)
        case MethodType():
            return MethodType, inside(value.__func__), inside(value.__self__)
        case functools.partial():
            return functools.partial, *map(inside, (value.func, value.args, value.keywords))
        case Mapping():
            return type(value), [(name, inside(entry)) for name, entry in value.items()]
        case tuple() | list():
            return type(value), [inside(entry) for entry in value]
        case np.ndarray():
            return np.ndarray, value.shape, value.dtype, value.tobytes()
        case jax.Array():
            return jax.Array, id(value)
    # 1, 1.0 and True are equal, and make different programs
    return type(value), value


def _content(cell: Any) -> Any:
    """Returns what a cell holds; nothing where its variable was not set."""
    try:
        return cell.cell_contents
    except ValueError:
        return None
