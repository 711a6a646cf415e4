"""Makes the aggregators and attacks that texts in a configuration name."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from fljax.core import call_numbers, parts
from fljax.core.transforms import Aggregator, Attackers, weighted_mean
from fljax.core.values import shown, wrong
from fljax.robustness import attackers as who
from fljax.robustness.aggregators.adaptive import adaptive_clipping, adaptive_zeroing
from fljax.robustness.aggregators.bulyan import bulyan
from fljax.robustness.aggregators.centered_clipping import centered_clipping
from fljax.robustness.aggregators.clipped_clustering import clipped_clustering
from fljax.robustness.aggregators.coordinates import median, trimmed_mean
from fljax.robustness.aggregators.divide_and_conquer import dnc
from fljax.robustness.aggregators.fltrust import fltrust
from fljax.robustness.aggregators.foolsgold import foolsgold
from fljax.robustness.aggregators.geometric_median import rfa
from fljax.robustness.aggregators.krum import krum, multi_krum
from fljax.robustness.aggregators.mixing import (
    Mixing,
    bucketing,
    chain,
    nearest_neighbour_mixing,
)
from fljax.robustness.aggregators.norm_bounding import norm_bound
from fljax.robustness.aggregators.robust_learning_rate import robust_learning_rate
from fljax.robustness.aggregators.signguard import signguard
from fljax.robustness.alternatives import alternatives
from fljax.robustness.attack import Attack
from fljax.robustness.attacks.alone import noise, scaling, sign_flip
from fljax.robustness.attacks.canary import canary
from fljax.robustness.attacks.edge_cases import edge_case
from fljax.robustness.attacks.farthest import min_max, min_sum
from fljax.robustness.attacks.free_rider import free_rider
from fljax.robustness.attacks.labels import label_flip, poisoned_labels
from fljax.robustness.attacks.mimic import mimic
from fljax.robustness.attacks.moments import alie, ipm
from fljax.robustness.attacks.pixels import pixel_trigger
from fljax.robustness.attacks.semantics import semantic

__all__ = [
    "AGGREGATORS",
    "ATTACKS",
    "make_aggregator",
    "make_attack",
    "make_attackers",
    "named_clients",
    "numbers_in",
    "opens_backdoor",
    "range_of_rounds",
    "without_numbers",
]

# What `aggregator` may name: one rule, behind what mixes or bounds updates before it.
AGGREGATORS: dict[str, Callable[..., Aggregator | Mixing]] = {
    "mean": lambda: weighted_mean,
    "median": median,
    "trimmed_mean": trimmed_mean,
    "krum": krum,
    "multi_krum": multi_krum,
    "bulyan": bulyan,
    "rfa": rfa,
    "centered_clipping": centered_clipping,
    "dnc": dnc,
    "signguard": signguard,
    "clipped_clustering": clipped_clustering,
    "fltrust": fltrust,
    "foolsgold": foolsgold,
    "robust_learning_rate": robust_learning_rate,
    "bucketing": bucketing,
    "nearest_neighbour_mixing": nearest_neighbour_mixing,
    "norm_bound": norm_bound,
    "adaptive_zeroing": adaptive_zeroing,
    "adaptive_clipping": adaptive_clipping,
}


def one_of(
    which: Any,
    attacks: Sequence[str],
    classes: int | None = None,
    largest: float | None = None,
) -> Attack:
    """Returns one of several attacks that texts name, by a number that may be traced."""
    offered = {"classes": classes, "largest": largest}
    return alternatives(which, [make_attack(text, offered) for text in attacks])


# What `attack` may name; several are one attack of all of them.
ATTACKS: dict[str, Callable[..., Attack]] = {
    "none": lambda: Attack(),
    "one_of": one_of,
    "label_flip": label_flip,
    "poisoned_labels": poisoned_labels,
    "pixel_trigger": pixel_trigger,
    "semantic": semantic,
    "edge_case": edge_case,
    "sign_flip": sign_flip,
    "noise": noise,
    "scaling": scaling,
    "free_rider": free_rider,
    "canary": canary,
    "alie": alie,
    "ipm": ipm,
    "min_max": min_max,
    "min_sum": min_sum,
    "mimic": mimic,
}
# Those that open a backdoor.
_BACKDOORS = ("pixel_trigger", "semantic", "edge_case")
# Numbers that no shape depends on, which a program can take as arguments.
NUMBERS: dict[str, tuple[str, ...]] = {
    "trimmed_mean": ("share", "f"),
    "robust_learning_rate": ("threshold",),
    "krum": ("f",),
    "multi_krum": ("f", "m"),
    "bulyan": ("f",),
    "rfa": ("iterations", "smoothing", "tolerance"),
    "centered_clipping": ("tau",),
    "dnc": ("f", "filter"),
    "signguard": ("lower", "upper"),
    "foolsgold": ("confidence",),
    "nearest_neighbour_mixing": ("f",),
    "norm_bound": ("norm",),
    "adaptive_zeroing": ("quantile", "multiplier", "increment", "initial", "learning_rate"),
    "adaptive_clipping": ("quantile", "initial", "learning_rate"),
    "free_rider": ("std", "decay"),
    "canary": ("norm", "seed", "chance"),
    "one_of": ("which",),
    "label_flip": ("source", "target", "share"),
    "pixel_trigger": ("share",),
    "sign_flip": ("scale",),
    "noise": ("std",),
    "scaling": ("factor",),
    "semantic": ("share",),
    "edge_case": ("share",),
    "alie": ("z",),
    "ipm": ("epsilon",),
    "mimic": ("warmup",),
}


def make_aggregator(
    text: str, offered: Mapping[str, Any], numbers: Mapping[str, Any] | None = None
) -> Aggregator:
    """Returns the aggregator that a text names.

    Args:
      text: Calls of `AGGREGATORS` or of functions of the user's.
      offered: {parameter: value} of what a run knows: num_clients, root.
      numbers: {name: number} in place of those in the text, as `numbers_in` names them.

    Raises:
      ValueError: For unknown names, wrong arguments, or what does not go together.
    """
    calls = parts.read("aggregator", text, AGGREGATORS)
    *mixings, rule = found = _made("aggregator", calls, offered, numbers or {})
    for each in mixings:
        if not isinstance(each, Mixing):
            raise ValueError(
                f"aggregator = {text!r}: only the last one makes one update of all; what stands "
                "before it mixes or bounds updates, such as bucketing(2) or norm_bound(1.0)."
            )
    if not isinstance(rule, Aggregator | Mixing):
        raise wrong("aggregator", rule, "a fljax.core.transforms.Aggregator, or its function")
    return rule if [rule] == found and isinstance(rule, Aggregator) else chain(*found)


def make_attack(
    text: str, offered: Mapping[str, Any], numbers: Mapping[str, Any] | None = None
) -> Attack:
    """Returns the attack that a text names; of several calls, all of them in one.

    Args:
      text: Calls of `ATTACKS` or of functions of the user's.
      offered: {parameter: value} of what a run knows: classes, 0 of a task without; largest, the
        largest number among stored inputs, or None.
      numbers: As for `make_aggregator`.

    Raises:
      ValueError: For unknown names, wrong arguments, or two that cannot be one attack.
    """
    calls = parts.read("attack", text, ATTACKS)
    _check_joins(text, [call.name for call in calls])
    found = _made("attack", calls, offered, numbers or {})
    for each in found:
        if not isinstance(each, Attack):
            raise wrong("attack", each, "a fljax.robustness.attack.Attack, or its function")
    single = {}
    for name in ("trigger", "own_rows"):
        given = [part for each in found if (part := getattr(each, name)) is not None]
        if len(given) > 1:
            raise ValueError(
                f"attack = {text!r}: {len(given)} of these have {_A[name]}, and a run has one. "
                "Leave the others out."
            )
        single[name] = given[0] if given else None
    links = {
        name: tuple(link for each in found for link in getattr(each, name))
        for name in ("batches", "uplink", "cohort", "labels")
    }
    return Attack(**links, **single)


_A = {"trigger": "a trigger of its own", "own_rows": "rows of their own"}
# Each of these sends the same for all colluders, whatever they have done before.
_COLLUSIONS = ("alie", "ipm", "min_max", "min_sum", "mimic")


def _check_joins(text: str, named: Sequence[str]) -> None:
    """Refuses calls of one text that undo each other."""
    twice = [name for name in named if named.count(name) > 1]
    both = [name for name in named if name in _COLLUSIONS]
    if twice or len(both) > 1:
        what = f"{twice[0]} twice" if twice else f"{both[0]} and {both[1]}"
        raise ValueError(
            f"attack = {text!r} has {what}, and the second would undo or replace the first. Leave "
            "one of them out."
        )


def opens_backdoor(text: str) -> bool:
    """Returns whether a text names an attack of the library that opens a backdoor.

    Example:
      >>> opens_backdoor("pixel_trigger(0), scaling"), opens_backdoor("alie"), opens_backdoor("?")
      (True, False, False)
    """
    try:
        return any(call.name in _BACKDOORS for call in parts.read("attack", text, ATTACKS))
    except ValueError:
        return False


def make_attackers(
    share: Any,
    clients: str | None,
    drawn: str,
    rounds: str | None,
    num_clients: int,
    honest: int | None = None,
) -> Attackers:
    """Returns who is hostile, and when.

    Args:
      share: Of the population, or of each cohort; may be traced.
      clients: Their numbers as a text, such as "3, 7-9", instead of a share.
      drawn: "once" or "each_round".
      rounds: Rounds in which they attack, from 1, such as "100", "10-50" or "10-"; None for all.
      num_clients: Size of the population, without the server's own.
      honest: A client that never is hostile: the server's own.

    Raises:
      ValueError: For clients that do not exist, or a text that names no numbers.
    """
    if clients is not None:
        found = who.by_client(named_clients(clients, num_clients))
    elif drawn == "each_round":
        found = who.by_round(share)
    else:
        found = who.by_share(share, num_clients)
    if rounds is not None:
        first, last = range_of_rounds(rounds)
        found = who.between(found, first - 1, None if last is None else last - 1)
    return found if honest is None else who.without(found, honest)


def named_clients(text: str, num_clients: int) -> set[int]:
    """Returns the clients whose numbers a text lists, such as "3, 7-9".

    Raises:
      ValueError: For clients that do not exist, or a text that names no numbers.
    """
    most = num_clients - 1
    ranges = ranges_of("attacker_clients", text)
    if far := [last for _, last in ranges if last is None or last > most]:
        named = "all from one on" if far[0] is None else f"client {far[0]}"
        raise ValueError(
            f"attacker_clients = {shown(text)} names {named}, and the clients are 0 to {most}."
        )
    return {n for first, last in ranges if last is not None for n in range(first, last + 1)}


def ranges_of(key: str, text: str) -> list[tuple[int, int | None]]:
    """Returns the ranges that a text lists: "3, 7-9, 20-" is (3, 3), (7, 9) and (20, None).

    Raises:
      ValueError: If it lists none, or one that ends before it begins.
    """
    found: list[tuple[int, int | None]] = []
    for piece in text.split(","):
        first, dash, last = (part.strip() for part in piece.strip().partition("-"))
        if not first.isdecimal() or (last and not last.isdecimal()):
            raise ValueError(f"{key} = {shown(text)}: write numbers and ranges, such as '3, 7-9'.")
        end = int(last) if last else None if dash else int(first)
        if end is not None and end < int(first):
            raise ValueError(f"{key} = {shown(text)}: {piece.strip()} ends before it begins.")
        found.append((int(first), end))
    return found


def range_of_rounds(text: str) -> tuple[int, int | None]:
    """Returns the first and the last round that a text names, from 1; None for no end.

    Raises:
      ValueError: If it names something else.
    """
    ranges = ranges_of("attack_rounds", text)
    if len(ranges) != 1 or ranges[0][0] < 1:
        raise ValueError(
            f"attack_rounds = {shown(text)}: write one round or a range of them, from 1, such as "
            "'100', '10-50' or '10-'."
        )
    return ranges[0]


def numbers_in(key: str, text: str | None) -> dict[str, float]:
    """Returns {name: number} of those numbers in a text that a program may take as arguments.

    Args:
      key: "aggregator" or "attack".
      text: As it was written; None names nothing.
    """
    calls = [] if text is None else parts.read(key, text, _TABLES[key])
    return call_numbers.numbers_in(key, calls, NUMBERS)


def without_numbers(key: str, text: str | None, traced: Collection[str]) -> str | None:
    """Returns a text as calls in which traced numbers are left out."""
    if text is None:
        return None
    return call_numbers.without_numbers(key, parts.read(key, text, _TABLES[key]), traced)


def _made(
    key: str, calls: Sequence[parts.Call], offered: Mapping[str, Any], numbers: Mapping[str, Any]
) -> list[Any]:
    """Returns what calls make, with `numbers` in place of those of the same name."""
    found = []
    for place, call in enumerate(calls):
        known = {name: value for name, value in offered.items() if name not in parts.written(call)}
        call = call_numbers.with_numbers(key, place, call, numbers)
        named = {name: value for name, value in call.named.items() if name not in known}
        found.append(parts.make(call._replace(named=named), offered=known))
    return found


_TABLES: dict[str, Mapping[str, Callable]] = {"aggregator": AGGREGATORS, "attack": ATTACKS}
