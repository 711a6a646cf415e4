"""Options that contradict each other, told alike of a configuration and of Python's arguments."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


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
