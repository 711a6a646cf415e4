"""Makes a run private: draws its protection from the options, and refuses what it cannot keep."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np

from fljax.core.algorithm import AlgorithmSpec
from fljax.core.parts import name_of
from fljax.core.settings import PRIVACY
from fljax.core.task import Task
from fljax.core.transforms import UplinkLink, as_configured
from fljax.data.dataset import FederatedDataset
from fljax.engine.plan.batching import steps_per_job, works_of
from fljax.privacy import names
from fljax.privacy.mechanism import Mechanism, Setting
from fljax.privacy.protection import (
    CLIP_NORM,
    NOISE,
    Protection,
    calibrated,
    protected,
    smallest,
)
from fljax.training.local_work import local_work, schedules_of
from fljax.training.options import RoundOptions
from fljax.training.participations import participations_of
from fljax.training.privacy_checks import check_messages, check_protection, weighting_of
from fljax.training.rehearsal import rehearsed
from fljax.training.sampling import make_sampler


def with_privacy(
    dataset: FederatedDataset, task: Task, spec: AlgorithmSpec, options: RoundOptions
) -> RoundOptions:
    """Returns the options with what protects the clients drawn, calibrated and checked.

    `privacy` is a `Protection` then, and the pipeline holds its links. Options that ask for no
    protection, or have it already, are returned as they are.

    Args:
      dataset, task, spec, options: As `fljax.training.federation.build` takes them.

    Raises:
      ValueError: If the mechanism's theorems do not cover the run, with the reason and the remedy.
    """
    asked = (options.privacy, options.secure_aggregation)
    if asked == (None, None) or isinstance(options.privacy, Protection):
        return options
    mechanism, is_open = _mechanism(options.privacy, options)
    if mechanism is not None:
        check_messages(dataset, task, spec, mechanism)
    setting = setting_of(dataset, task, spec, options)
    if mechanism is not None and is_open:
        mechanism = calibrated(mechanism, setting, options.target_epsilon)
    largest = _largest_weight(dataset, task, spec, options)
    secure, *bounds = _secure_aggregation(options, setting, mechanism, largest)
    _check_weights(secure, largest)
    protection = Protection(mechanism, setting, secure, options.target_epsilon, is_open, *bounds)
    check_protection(dataset, task, spec, options, protection)
    _check_budget(protection)
    pipeline = protected(options.pipeline, protection)
    return dataclasses.replace(options, privacy=protection, pipeline=pipeline)


def setting_of(
    dataset: FederatedDataset, task: Task, spec: AlgorithmSpec, options: RoundOptions
) -> Setting:
    """Returns the facts of a run that mechanisms and accountants use."""
    uplink = as_configured(options.pipeline).uplink
    summed = options.secure_aggregation is not None or any(link.linear for link in uplink)
    return Setting(
        num_clients=dataset.num_clients,
        clients_per_round=options.clients_per_round,
        sampler=_sampler_name(options),
        num_rounds=options.num_rounds,
        seed=options.seed,
        batches=options.batches,
        weighting=weighting_of(dataset, task, spec, options),
        behind="sums" if summed else "links" if uplink else "nothing",
        separation=make_sampler(dataset, options, options.seed).separation,
        message_size=_message_size(dataset, task, spec),
        **facts_of_clients(dataset, task, spec, options, options.seed),
    )


def facts_of_clients(
    dataset: FederatedDataset, task: Task, spec: AlgorithmSpec, options: RoundOptions, seed: int
) -> dict[str, Any]:
    """Returns those facts of a setting that follow from the clients and the seed of a trial."""
    sizes = dataset.train.partition.sizes
    work = local_work(sizes, options)
    works = works_of(work, schedules_of(task, spec, options.batches))
    return {
        "sizes": sizes,
        "batch_size": np.broadcast_to(work.batch_size, sizes.shape),
        "steps": np.sum([steps_per_job(sizes, each) for each in works], axis=0),
        "participations": participations_of(
            make_sampler(dataset, options, seed), dataset.num_clients
        ),
    }


def _message_size(dataset: FederatedDataset, task: Task, spec: AlgorithmSpec) -> int:
    """Returns how many numbers a client sends in a pass, at most."""
    passes = rehearsed(dataset, task, spec).contributions
    messages = [[part.value for part in each.values()] for each in passes]
    return max(sum(leaf.size for leaf in jax.tree.leaves(message)) for message in messages)


def _sampler_name(options: RoundOptions) -> str:
    """Returns the name of what draws cohorts; "" of a sampler that has none."""
    if options.cohorts is not None:
        return "replay"
    return name_of(options.sampler) if isinstance(options.sampler, str) else ""


def _mechanism(
    privacy: str | Mechanism | None, options: RoundOptions
) -> tuple[Mechanism | None, bool]:
    """Returns the mechanism, and whether its noise is still to be found."""
    if not isinstance(privacy, str):
        return privacy, False
    beside = {name: getattr(options, name) for name in PRIVACY if name not in _NOT_PASSED}
    given = {name: value for name, value in beside.items() if value is not None}
    return names.make(privacy, given, calibrated=options.target_epsilon is not None)


# Options of privacy that are no arguments of a mechanism.
_NOT_PASSED = ("privacy", "target_epsilon", "secure_aggregation")


def _secure_aggregation(
    options: RoundOptions,
    setting: Setting,
    mechanism: Mechanism | None,
    largest_weight: float | None,
) -> tuple[UplinkLink | None, str | None, float | None]:
    """Returns the last link of the uplink, and the `unit` and `fixed_norm` of its sums."""
    if not isinstance(options.secure_aggregation, str):
        return options.secure_aggregation, None, None
    offered: dict[str, float | bool | None] = {"max_weight": largest_weight}
    unit = fixed_norm = None
    if mechanism is not None and _noises_sums(mechanism, setting):
        promised = mechanism.guarantee(mechanism.hparams, setting)
        sent_norm = promised.clip_norm if promised.sent_norm is None else promised.sent_norm
        if sent_norm is not None:
            # what is sent keeps to the norm that the noise is in proportion to
            unit = CLIP_NORM if mechanism.hparams.get(CLIP_NORM) == sent_norm < np.inf else None
            fixed_norm = sent_norm if unit is None else None
            offered |= {"by_norm": True, "clip": fixed_norm or 1.0}
    return names.make_secure_aggregation(options.secure_aggregation, offered), unit, fixed_norm


def _noises_sums(mechanism: Mechanism, setting: Setting) -> bool:
    """Returns whether noise is added to sums, in proportion to the norm of a message in them."""
    if mechanism.link is None:
        return False
    return mechanism.link(mechanism.hparams, setting).release is not None


def _largest_weight(
    dataset: FederatedDataset, task: Task, spec: AlgorithmSpec, options: RoundOptions
) -> float | None:
    """Returns the largest weight of a client; None where it is not known before the run."""
    without = dataclasses.replace(options, client_weights=None)
    weighting = weighting_of(dataset, task, spec, without)
    if weighting == "own":
        return None
    if options.client_weights is not None:
        return float(np.max(options.client_weights))
    return float(np.max(dataset.train.partition.sizes)) if weighting == "examples" else 1.0


def _check_weights(secure: UplinkLink | None, largest: float | None) -> None:
    """Raises ValueError where secure aggregation would cut off a weight that is known."""
    if secure is None or secure.max_weight is None or largest is None:
        return
    if largest > secure.max_weight * (1 + 1e-6):
        raise ValueError(
            f"secure_aggregation: max_weight = {secure.max_weight:g}, but clients weigh up to "
            f"{largest:g}, and what is larger would be cut off. Give it max_weight={largest:g}, or "
            "let all weigh alike: weighting='uniform'. Smaller weights are client_weights, such as "
            f"those of the rows up to {secure.max_weight:g}."
        )


def _check_budget(protection: Protection) -> None:
    """Raises ValueError where not even one round keeps to the budget."""
    mechanism, target = protection.mechanism, protection.target_epsilon
    if mechanism is None or target is None:
        return
    spent = smallest(protection.guarantee(mechanism.hparams).epsilon(1))
    if spent > target:
        noise = mechanism.hparams.get(NOISE)
        remedy = "" if noise is None else f"Raise {NOISE} = {noise:g}, or leave it unset, or "
        if noise == 0:
            remedy = f"{NOISE} = 0 hides nothing: set it above 0, or leave it unset, or "
        raise ValueError(
            f"target_epsilon = {target:g}, and the first round of {mechanism.name} spends "
            f"{spent:.4g}. {remedy or 'Choose other numbers, or '}raise target_epsilon."
        )
