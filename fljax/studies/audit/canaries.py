"""Canary clients: runs in which some clients send random directions, and what these prove.

Each run, a trial of one program, has canaries of its own; a coin says of each whether it is sent.
Whoever sees the released model looks for their directions in what has changed since the start
(`fljax.audits.bounds.canaries`). They measure the privacy of whole clients.
"""

from __future__ import annotations

import copy
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fljax.audits.bounds.canaries import audit_canaries, cosines, included
from fljax.audits.bounds.one_run import audit_one_run
from fljax.config import with_keys
from fljax.robustness.attackers import by_share
from fljax.studies.audit.federations import Snapshot, one_program, train_federations
from fljax.studies.audit.promises import least_epsilon
from fljax.studies.audit.settings import Audit
from fljax.studies.groups import Group, from_config
from fljax.studies.space import Trial
from fljax.training.options import split_options
from fljax.training.privacy_records import ledger_of
from fljax.training.trials import attackers_key

# More than any clipping norm: what is sent is as long as that.
_NORM = 1e4
# Numbers of directions that no client has, to compare with.
_UNSENT = np.arange(1_000_000, 1_002_000)
_CLIENT = "user"


def canary_runs(config: Any, settings: Audit) -> dict[str, Any] | None:
    """Returns what canaries of several runs prove of a configuration's epsilon, as JSON values.

    Args:
      config: Of the defence; one whose mechanism hides clients.
      settings: Of the audit; `canaries` runs, with seeds from `seed` on.

    Returns:
      {"runs", "share": of clients that are canaries, "promised", "delta", and a list of a number
      for each run: "one_run", the bound that needs fair coins alone; "trials", that which takes
      canaries for independent; "gaussian", that which takes the mechanism for Gaussian as well;
      "estimate", which is no bound}. None where none are asked for, or nothing hides clients.
    """
    if not settings.canaries or config.get("privacy") is None:
        return None
    own = with_keys(copy.deepcopy(config), {"attackers": settings.canary_share})
    group = _runs(own, settings)
    if _unit_of(group) != _CLIENT:
        return None
    models: dict[int, list[Any]] = {}

    def look(snapshot: Snapshot) -> None:
        params = jax.device_get(snapshot.models.params)
        for place, number in enumerate(snapshot.numbers.tolist()):
            own = jax.tree.map(lambda leaf, place=place: leaf[place], params)
            models.setdefault(number, []).append(own)

    promised = train_federations(group, look, (0,))
    proved = [
        _proved(trial, jax.tree.map(np.subtract, after, before), promised["delta"], settings, group)
        for trial, (before, after) in zip(group.trials, models.values(), strict=True)
    ]
    return {name: [bounds[name] for bounds in proved] for name in proved[0]} | {
        "runs": len(group.trials),
        "share": settings.canary_share,
        "promised": least_epsilon(promised),
        "delta": promised["delta"],
    }


def _unit_of(group: Group) -> str:
    """Returns whose participation the mechanism of runs hides."""
    options, _ = split_options(group.experiment.options)
    return ledger_of(options, group.experiment.hparams).guarantee.unit


def _runs(config, settings: Audit) -> Group:
    """Returns the runs as trials that share a program."""
    trials = [
        Trial(number, {}, seed=settings.seed + number, variant=str(number))
        for number in range(settings.canaries)
    ]
    variants = {
        trial.variant: {"attack": f"canary({_NORM:g}, seed={trial.seed}, chance=0.5)"}
        for trial in trials
    }
    return one_program(trials, from_config(config, variants))


def _proved(
    trial: Trial, change: Any, delta: float, settings: Audit, group: Group
) -> dict[str, float | None]:
    """Returns the bounds of one run."""
    clients = jnp.arange(group.experiment.dataset.num_clients)
    hostile = by_share(settings.canary_share, len(clients))
    is_canary = hostile.among(clients, clients >= 0, 0, attackers_key(trial.seed))
    canaries = np.flatnonzero(np.asarray(is_canary))
    looks = jax.tree.map(lambda leaf: leaf[None], change)
    found = cosines(looks, trial.seed, np.concatenate([canaries, _UNSENT]))[0]
    sent, unsent = found[: len(canaries)], found[len(canaries) :]
    was_sent = included(trial.seed, canaries, 0.5)
    dimensions = sum(leaf.size for leaf in jax.tree.leaves(change))
    shared = {"delta": delta, "dimensions": dimensions}
    plain = audit_canaries(sent[was_sent], unsent, **shared)
    return {
        "one_run": audit_one_run(sent, was_sent, delta=delta).epsilon,
        "trials": plain.epsilon,
        "gaussian": audit_canaries(sent[was_sent], unsent, gaussian=True, **shared).epsilon,
        "estimate": plain.plain()["estimate"],
    }
