"""Finds options without an effect beside others, and options that contradict each other.

Both are told alike of a configuration and of Python's arguments.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from fljax.core.data_settings import PARTITIONS
from fljax.core.parts import name_of
from fljax.core.settings import PRIVACY, SYSTEMS
from fljax.core.values import shown

_LOCAL_SGD = ("fedavg", "fedopt", "fedprox")
# The algorithms whose options stand below; others take those that their signatures name.
_TOLD_OF = (*_LOCAL_SGD, "fedsgd", "scaffold")
_DIRICHLET = (
    *("dirichlet", "dirichlet_hsu", "dirichlet_per_client", "pfllib_dirichlet"),
    *("quantity_label", "pachinko"),
)
_ADAPTIVE = ("adagrad", "adam", "yogi")
# Schedules in which clients begin one by one, and those in which the sampler's cohort works.
_ASYNCHRONOUS = ("fedbuff", "fedasync")
_OF_COHORTS = ("wait_for_all", "deadline", "stragglers")
# {option: (other option, values of it with which the first one has an effect)}
ONLY_WITH: dict[str, tuple[str, tuple[str, ...]]] = {
    "alpha": ("partition", _DIRICHLET),
    "shards_per_client": ("partition", ("shards",)),
    "classes_per_client": ("partition", ("classes_per_client", "pfllib_pathological")),
    "sigma": ("partition", ("quantity", "quantity_label")),
    "min_partition_size": ("partition", tuple(name for name in PARTITIONS if name != "natural")),
    "client_lr": ("algorithm", (*_LOCAL_SGD, "scaffold")),
    "client_lr_schedule": ("algorithm", (*_LOCAL_SGD, "scaffold")),
    "client_lr_warmup_rounds": ("algorithm", (*_LOCAL_SGD, "scaffold")),
    "client_momentum": ("algorithm", _LOCAL_SGD),
    "client_weight_decay": ("algorithm", _LOCAL_SGD),
    "mu": ("algorithm", ("fedprox",)),
    "server_optimizer": ("algorithm", ("fedavg", "fedopt")),
    "server_momentum": ("server_optimizer", ("momentum",)),
    "beta1": ("server_optimizer", _ADAPTIVE),
    "beta2": ("server_optimizer", ("adam", "yogi")),
    "tau": ("server_optimizer", _ADAPTIVE),
    "bias_correction": ("server_optimizer", _ADAPTIVE),
}


def has_effect(name: str, values: Mapping[str, Any]) -> bool:
    """Returns whether an option has an effect beside the others; if no algorithm is known, yes."""
    other, needed = ONLY_WITH.get(name, (None, ()))
    if other is None or (other != "partition" and name_of(values.get("algorithm")) not in _TOLD_OF):
        return True
    chosen = name_of(values[other])
    # a partitioner of the user's own takes those that its signature names
    return chosen in needed or (other == "partition" and ":" in chosen)


def contradictions(values: Mapping[str, Any]) -> Iterator[str]:
    """Yields what is wrong with options that are each allowed, and what to do.

    Args:
      values: Of the options that surround the rounds, and `rounds_per_dispatch`.
    """
    targets = [name for name in ("target_accuracy", "target") if values[name] is not None]
    if len(targets) > 1:
        yield (
            f"target_accuracy = {values['target_accuracy']} and target = {values['target']} are "
            "both given, and are two words for one thing. Leave one of them out."
        )
    if values["stop_at_target"] and not targets:
        yield "stop_at_target needs target_accuracy, such as 0.9."
    for name in ("stop_at_target", "patience"):
        if values[name] and values["eval_every"] == 0:
            yield f"{name} has no effect with eval_every = 0. Set eval_every, such as 10."
    if values["min_delta"] and not values["patience"]:
        yield (
            f"min_delta = {values['min_delta']} has no effect with patience = 0. Set patience, "
            "such as 5."
        )
    rounds = values["rounds_per_dispatch"]
    for name in ("eval_every", "checkpoint_every"):
        if 0 < values[name] < rounds:
            yield (
                f"rounds_per_dispatch = {rounds} has no effect with {name} = {values[name]}. "
                "Lower the one or raise the other."
            )


def robustness_contradictions(values: Mapping[str, Any]) -> Iterator[str]:
    """Yields what is wrong with options of attacks that are each allowed, and what to do.

    Args:
      values: Of `ROBUSTNESS`; in Python `attack` may be an attack as well as a text.
    """
    share, named = values["attackers"], values["attacker_clients"] is not None
    if share is not None and named:
        yield (
            f"attackers = {share} and attacker_clients = "
            f"{values['attacker_clients']!r} both say who is hostile. Leave one of them out."
        )
    if values["attack"] is None:
        for name in ("attackers", "attacker_clients", "attack_rounds"):
            if values[name] not in (None, 0):
                yield (
                    f"{name} = {values[name]!r} has no effect without attack. Name one, such as "
                    f"attack = 'sign_flip', or 'none' beside others of a study, or leave {name} "
                    "out."
                )
    elif share is None and not named:
        yield (
            "attack is set, and nobody is hostile. Set attackers, such as 0.2, or name them by "
            "attacker_clients; a run without, beside others of a study, has attackers = 0 or "
            "attack = 'none'."
        )
    if values["attackers_drawn"] != "once" and share is None:
        yield (
            f"attackers_drawn = {values['attackers_drawn']!r} has no effect without attackers, the "
            "share of each cohort. Set attackers, such as 0.2."
        )
    for name in ("worker_dampened", "attacker_momentum"):
        if not values[name] and values["worker_momentum"] is None:
            yield (
                f"{name} = False has no effect without worker_momentum. Set worker_momentum, such "
                "as 0.9."
            )
    if not values["attacker_momentum"] and values["attack"] is None:
        yield "attacker_momentum = False has no effect without attack. Leave it out."


def systems_contradictions(values: Mapping[str, Any]) -> Iterator[str]:
    """Yields what is wrong with options of time that are each allowed, and what to do.

    Args:
      values: Of `SYSTEMS`, and sampler, cohorts, steps_per_round, root_rows, secure_aggregation and
        privacy, as far as there are such; in Python they may be records as well.
    """
    timed = [name for name in SYSTEMS if values[name] is not None]
    if not timed:
        return
    first = f"{timed[0]} = {shown(values[timed[0]])}"
    if values.get("root_rows"):
        yield (
            f"root_rows = {values['root_rows']} gives the server a client of its own, which has no "
            f"device, and {first} gives all clients one. Leave one of them out."
        )
    if values.get("steps_per_round") is not None:
        yield f"steps_per_round is given, and {first} plans steps itself. Leave one of them out."
    schedule = values["schedule"]
    if schedule is not None and not isinstance(schedule, str) and len(timed) > 1:
        others = " and ".join(name for name in timed if name != "schedule")
        yield (
            f"{others} have no effect with a schedule of your own. Leave them out, or name one of "
            "ours."
        )
    if values["dropout"] and values["connectivity"] is not None:
        yield (
            f"dropout = {values['dropout']} and connectivity = {values['connectivity']!r} both say "
            "how often work is lost. Leave one of them out."
        )
    if values.get("privacy") is not None:
        yield from _uncounted(values)
    draws = not isinstance(schedule, str | None) or name_of(str(schedule)) in _ASYNCHRONOUS
    if draws and values.get("cohorts") is not None:
        yield (
            f"cohorts are given, and schedule = {shown(schedule)} says itself who begins when. "
            "Leave one of them out."
        )
    if draws and values.get("sampler", "uniform") != "uniform":
        yield (
            f"sampler = {shown(values['sampler'])} has no effect with schedule = "
            f"{shown(schedule)}, which says itself who begins when. Leave it out."
        )
    if not draws or not isinstance(schedule, str):
        return
    if values.get("secure_aggregation") is not None:
        yield (
            "secure_aggregation masks sums over cohorts that begin together, and under schedule = "
            f"{schedule!r} clients begin one by one, and late ones count less. Leave one of them "
            "out."
        )


def _uncounted(values: Mapping[str, Any]) -> Iterator[str]:
    """Yields what makes guarantees of privacy void, which count on who takes part when."""
    schedule = values["schedule"]
    named = name_of(schedule) if isinstance(schedule, str) else None
    if schedule is not None and named not in _OF_COHORTS:
        what = f"under schedule = {shown(schedule)} others take part than the sampler draws"
    elif values["availability"] is not None:
        what = "with availability others take part than the sampler draws, those who are online"
    else:
        return
    yield (
        f"privacy counts on the sampler's draws for who takes part, and {what}, so that nothing "
        "would be promised. Leave one of them out; schedule = 'deadline(...)' and dropout only "
        "lose clients, and keep the promise."
    )


def privacy_contradictions(values: Mapping[str, Any]) -> Iterator[str]:
    """Yields what is wrong with options of privacy that are each allowed, and what to do.

    Args:
      values: Of `PRIVACY`; in Python `privacy` may be a mechanism as well as a text.
    """
    mechanism = values["privacy"]
    for name in PRIVACY.keys() - {"privacy", "secure_aggregation"}:
        value = values[name]
        if value is None or isinstance(mechanism, str):
            continue
        if mechanism is None:
            yield (
                f"{name} = {value} has no effect without privacy. Name a mechanism, such as "
                f"privacy = 'gaussian', or leave {name} out."
            )
        elif name != "target_epsilon":
            yield (
                f"{name} = {value} is given beside privacy = {mechanism.name}(...), a mechanism "
                f"that has its own. Give it where the mechanism is made."
            )
