"""Names the memories of the uplink, and the settings they take where none are given."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from fljax.compression.compressor_arguments import check_fraction
from fljax.compression.differences import diana, ef21, marina
from fljax.compression.feedback import error_feedback
from fljax.core.transforms import UplinkLink


class Facts(NamedTuple):
    """Facts that memories take their settings from where none are given.

    Attributes:
      num_clients: Clients that ever take part.
      seed: Of the run.
      omega: The compressor's; None if it is biased.
      share: Bits of a compressed update / bits of an update as it is; at most 1.
    """

    num_clients: int
    seed: int
    omega: float | None
    share: float


class Memory(NamedTuple):
    """A memory that a client and the server keep between rounds.

    Attributes:
      wrap: (link, facts) -> the link with that memory.
      unbiased: Whether it needs an unbiased compressor.
      whole: facts -> share of the rounds in which updates are sent as they are.
      derived: The setting that follows from the compressor's facts, since none was given.
    """

    wrap: Callable[[UplinkLink, Facts], UplinkLink]
    unbiased: bool = False
    whole: Callable[[Facts], float] = lambda facts: 0.0
    derived: str | None = None


def _error_feedback() -> Memory:
    return Memory(lambda link, facts: error_feedback(link))


def _ef21() -> Memory:
    return Memory(lambda link, facts: ef21(link, facts.num_clients))


def _diana(rate: float | None = None) -> Memory:
    """By default the largest rate of the theory, 1 / (1 + omega)."""
    if rate is not None:
        check_fraction("rate", rate)

    def wrap(link, facts):
        return diana(link, facts.num_clients, rate or 1 / (1 + facts.omega))

    return Memory(wrap, unbiased=True, derived="rate" if rate is None else None)


def _marina(probability: float | None = None) -> Memory:
    """By default as likely as a compressed update is small: the paper's K / d of random K."""
    if probability is not None:
        check_fraction("probability", probability)

    def whole(facts):
        return probability or facts.share

    def wrap(link, facts):
        return marina(link, whole(facts), seed=facts.seed)

    derived = "probability" if probability is None else None
    return Memory(wrap, unbiased=True, whole=whole, derived=derived)


MEMORIES: dict[str, Callable[..., Memory]] = {
    "error_feedback": _error_feedback,
    "ef21": _ef21,
    "diana": _diana,
    "marina": _marina,
}
