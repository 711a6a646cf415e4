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
from fljax.core.algorithm import Variables
from fljax.robustness.attackers import by_share
from fljax.studies.audit.promises import least_epsilon
from fljax.studies.audit.settings import Audit
from fljax.studies.groups import Group, from_config, grouped
from fljax.studies.slots import Slots, affordable, check_group, host_memory_in_use
from fljax.studies.space import Trial
from fljax.training.options import split_options
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
    options, run_options = split_options(group.experiment.options)
    found: dict[str, list] = {"one_run": [], "trials": [], "gaussian": [], "estimate": []}
    count = affordable(group, options, host_memory_in_use())
    promised: dict[str, Any] = {}
    for begin in range(0, len(group.trials), count):
        trials = group.trials[begin : begin + count]
        slots = Slots(group, trials, options, run_options)
        if begin == 0 and not promised:
            promised = slots.active[0].ledger.summary(options.num_rounds)
            if promised["unit"] != _CLIENT:
                return None
        for trial, change in zip(trials, _changes(slots, options.num_rounds), strict=True):
            for name, value in _proved(trial, change, promised["delta"], settings, group).items():
                found[name].append(value)
    return found | {
        "runs": len(group.trials),
        "share": settings.canary_share,
        "promised": least_epsilon(promised),
        "delta": promised["delta"],
    }


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
    first, *others = grouped(trials, from_config(config, variants))
    if others:
        raise ValueError(
            f"The {len(trials)} runs with canaries are {len(others) + 1} programs: what they do "
            "depends on their seeds. Audit a configuration whose seeds share a program."
        )
    check_group(first)
    return first


def _changes(slots: Slots, num_rounds: int) -> list[Any]:
    """Returns how far all rounds have moved the parameters of each run."""

    def models() -> list[Variables]:
        return jax.device_get([slots.federation.variables_of(slot) for slot in slots.active])

    before = models()
    slots.train(num_rounds)
    pairs = zip(models(), before, strict=True)
    return [jax.tree.map(np.subtract, after.params, start.params) for after, start in pairs]


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
