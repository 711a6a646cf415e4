"""Reports how evenly clients were chosen: who ever was, and how turns are spread over groups."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from fljax.core.spread import spread
from fljax.core.values import whole_numbers, wrong


class Participation(NamedTuple):
    """Numbers of times that clients were chosen.

    Attributes:
      clients: How many there are.
      turns: How often any of them was chosen.
      coverage: Share of the clients that were ever chosen; NaN without clients.
      gini: Gini's index of turns over clients, 0 if all have as many; NaN without any turn.
      jain: Jain's index, 1 if all have as many, and 1 / clients if one has all; NaN likewise.
      share: Share of all turns that these clients had; NaN without any turn.
      parity: That share over their share of the clients: 1 where they are chosen as often as
        others; NaN likewise.
    """

    clients: int
    turns: int
    coverage: float
    gini: float
    jain: float
    share: float
    parity: float


def participation_report(
    counts: np.ndarray, groups: Mapping[str, Any] | None = None
) -> dict[str, dict[Any, Participation]]:
    """Describes how turns are spread over clients, and over each group of them.

    Clients that a run lost after they were chosen count as chosen: what is judged is selection.

    Args:
      counts: int[N] how often each client was chosen.
      groups: {name: [N] the group of each client}, such as {"tier": names of tiers}.

    Returns:
      {"all": {"all": Participation}, and each name: {group: Participation}}, groups in order.

    Raises:
      ValueError: For counts below 0, or groups of another length.

    Example:
      >>> tiers = ["fast", "fast", "slow", "slow"]
      >>> report = participation_report(np.array([3, 1, 0, 0]), {"tier": tiers})
      >>> report["all"]["all"].coverage, round(report["all"]["all"].gini, 3)
      (0.5, 0.625)
      >>> report["tier"]["fast"].parity, report["tier"]["slow"].coverage
      (2.0, 0.0)
    """
    counts = whole_numbers("counts", counts)
    if counts.size and counts.min() < 0:
        raise wrong("counts", int(counts.min()), "at least 0: how often a client was chosen")
    turns = int(counts.sum())
    report = {"all": {"all": _of(counts, turns, len(counts))}}
    for name, labels in (groups or {}).items():
        labels = np.asarray(labels)
        if labels.shape != counts.shape:
            raise ValueError(
                f"groups[{name!r}] has shape {list(labels.shape)}, and there are {len(counts)} "
                "clients. Give one group for each."
            )
        report[name] = {
            group: _of(counts[labels == group], turns, len(counts))
            for group in np.unique(labels).tolist()
        }
    return report


def _of(counts: np.ndarray, turns: int, clients: int) -> Participation:
    evenness = spread(counts)
    share = float(counts.sum()) / turns if turns else math.nan
    return Participation(
        clients=len(counts),
        turns=int(counts.sum()),
        coverage=float(np.count_nonzero(counts)) / len(counts) if len(counts) else math.nan,
        gini=evenness["gini"],
        jain=evenness["jain"],
        share=share,
        parity=share * clients / len(counts) if len(counts) else math.nan,
    )
