"""Makes the samplers and schedules of a run out of its options."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from fljax.core import parts
from fljax.core import sampler as samplers
from fljax.core.always import always
from fljax.core.schedule import Schedule
from fljax.data.dataset import FederatedDataset
from fljax.data.partitions.statistics import split_label_counts
from fljax.engine.plan.cohorts import Cohorts
from fljax.selection import names
from fljax.systems.fleet import Fleet
from fljax.training.options import RoundOptions
from fljax.training.timing import ScheduleMaker, is_timed
from fljax.training.trials import TrialInputs


def make_cohorts(
    dataset: FederatedDataset,
    options: RoundOptions,
    trials: Sequence[TrialInputs],
    make: ScheduleMaker,
) -> Cohorts:
    """Returns the cohorts of some trials, whose schedules are made as `schedule_maker` says."""
    groups = [np.asarray(values) for values in dataset.groups.values()]

    def schedule_of(trial: TrialInputs) -> Schedule:
        def sampler_of(clients_per_round: float, fleet: Fleet | None = None) -> samplers.Sampler:
            asked = dataclasses.replace(options, clients_per_round=clients_per_round)
            return make_sampler(dataset, asked, trial.seed, fleet)

        return make(sampler_of, trial.seed, trial.partition)

    return Cohorts(
        tuple(map(schedule_of, trials)),
        dataset.num_clients,
        # the first of the data set's groups, as numbers from 0
        np.unique(groups[0], return_inverse=True)[1].astype(np.int32) if groups else None,
        options.steps_per_round,
    )


def make_sampler(
    dataset: FederatedDataset, options: RoundOptions, seed: int, fleet: Fleet | None = None
) -> samplers.Sampler:
    """Returns the sampler that the options ask for.

    Args:
      dataset: The federated data.
      options: Of the run.
      seed: Of the trial.
      fleet: The clients in time; None where there is no clock, or where only what the sampler
        promises is asked for.
    """
    clients, sampler = dataset.members, options.sampler
    if options.cohorts is not None:
        sampler = samplers.replay(options.cohorts, clients)
    elif isinstance(sampler, str):
        sampler = names.make(
            sampler,
            clients,
            options.clients_per_round,
            seed,
            dataset.train.partition.sizes[:clients],
            options.separation,
            **_known(sampler, dataset, options, fleet),
        )
    elif options.privacy is not None and sampler.separation:
        sampler = samplers.keeping_apart(sampler, clients)
    if dataset.root is not None:
        sampler = always(sampler, dataset.root)
    _check_feedback(sampler.feedback, options.rounds_per_dispatch)
    return sampler


def _known(
    text: str, dataset: FederatedDataset, options: RoundOptions, fleet: Fleet | None
) -> dict[str, np.ndarray]:
    """Returns what a sampler asks for of the clients, and the run knows."""
    parameters = parts.parameters_of(parts.read_one("sampler", text, names.SAMPLERS).function)
    asked = {parameter.name for parameter in parameters}
    known = {}
    if "labels" in asked and dataset.num_classes is not None:
        known["labels"] = split_label_counts(dataset)[: dataset.members]
    if asked & set(_SECONDS) and is_timed(options):
        seconds = np.ones((len(_SECONDS), dataset.members))
        if fleet is not None:
            times = fleet.medians()
            seconds = (times.total, times.download + times.compute, times.upload)
        known |= dict(zip(_SECONDS, seconds, strict=True))
    return known


# What samplers may ask of clients' devices.
_SECONDS = ("durations", "compute_seconds", "upload_seconds")


def _check_feedback(kind: str, rounds_per_dispatch: int) -> None:
    """Refuses feedback that there is not, or that would come too late."""
    known = ("none", *samplers.DELAYS)
    if kind not in known:
        raise ValueError(f"The sampler's feedback = {kind!r}; choose from {', '.join(known)}.")
    if kind != "none" and rounds_per_dispatch > 1:
        raise ValueError(
            f"rounds_per_dispatch = {rounds_per_dispatch}, but the sampler has {kind} feedback, "
            "and learns from single rounds. Leave it at 1."
        )


def check_versions(needed: int, there_are: int) -> None:
    """Raises ValueError if trials that take the places of others start from older versions."""
    if needed > there_are:
        raise ValueError(
            f"A trial's clients work from up to {needed} versions at a time, and the program of "
            f"the trials before it keeps {there_are}. Set max_staleness in schedule, such as "
            f"{needed - 1}, so that all trials keep as many."
        )
