"""Skews by name: those of the library, calls of them, and functions of one's own."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

from fljax.core import parts
from fljax.core.values import shown
from fljax.data.heterogeneity.scanners import scanners
from fljax.data.heterogeneity.skews import (
    Skew,
    blur,
    colour,
    gaussian_noise,
    pixel_permutation,
    rotations,
)

SKEWS: dict[str, Callable[..., Skew]] = {
    "rotations": rotations,
    "gaussian_noise": gaussian_noise,
    "blur": blur,
    "colour": colour,
    "pixel_permutation": pixel_permutation,
    "scanners": scanners,
}


def named_skew(text: str) -> Skew:
    """Returns the skew that a text names; of several, each combination is a domain."""
    calls = parts.read("feature_skew", text, SKEWS)
    return combined([checked_skew(call, parts.make(call)) for call in calls])


def checked_skew(call: parts.Call, found: Any) -> Skew:
    """Returns what a call made; refuses what is no skew."""
    if not isinstance(found, Skew):
        raise parts.FailedCall(
            f"{call.where}: {call.name} returned {shown(found)} ({type(found).__name__}), and a "
            "skew is a fljax.data.Skew(names, apply)."
        )
    return found


def combined(kinds: Sequence[Skew]) -> Skew:
    """Returns the skew of which each combination of the domains of others is a domain."""
    if len(kinds) == 1:
        return kinds[0]
    combinations = list(itertools.product(*(range(len(kind.names)) for kind in kinds)))

    def apply(x, domain, rng):
        for kind, number in zip(kinds, combinations[domain], strict=True):
            x = kind.apply(x, number, rng)
        return x

    names = itertools.product(*(kind.names for kind in kinds))
    moves = any(kind.moves for kind in kinds)
    return Skew(["+".join(several) for several in names], apply, moves)
