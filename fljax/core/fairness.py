"""Audits of groups of rows, such as sexes: do they get predictions alike? On the host, in float64.

For tasks of two classes, of which 1 is the positive one. Definitions and names are those of
Fairlearn (Weerts et al. 2023, arXiv:2303.16626), whose numbers these are; a rate of a group without
rows of the kind is NaN here, and left out of comparisons, where Fairlearn takes 0.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fljax.core import random

__all__ = ["GAPS", "RATES", "Counts", "counts_of", "gaps", "intervals", "rates"]

RATES = ("accuracy", "selection_rate", "true_positive_rate", "false_positive_rate")
# {what is compared: (the rates of groups of which the worst counts)}
_COMPARED = {
    "demographic_parity": ("selection_rate",),
    "equalized_odds": ("true_positive_rate", "false_positive_rate"),
    "equal_opportunity": ("true_positive_rate",),
}
GAPS = tuple(f"{name}_{kind}" for name in _COMPARED for kind in ("difference", "ratio"))


class Counts(NamedTuple):
    """Rows by group, [..., groups] each.

    Attributes:
      rows: All.
      positive: Of class 1.
      selected: Predicted to be.
      hits: Both.
    """

    rows: np.ndarray
    positive: np.ndarray
    selected: np.ndarray
    hits: np.ndarray


def counts_of(
    right: np.ndarray,
    y: np.ndarray,
    groups: np.ndarray,
    num_groups: int,
    owners: np.ndarray | None = None,
    num_owners: int = 1,
) -> Counts:
    """Counts rows by group, and by client where they have owners.

    Args:
      right: [R] whether a row's prediction is its target.
      y: [R] 0 or 1.
      groups: int[R], from 0.
      num_groups: G.
      owners: int[R] client of each row, from 0; None counts all rows together.
      num_owners: N.

    Returns:
      Counts of float64[N, G]; [G] without owners.

    Example:
      >>> right, y = np.array([1, 1, 0, 1]), np.array([1, 0, 0, 1])
      >>> counts_of(right, y, np.array([0, 0, 1, 1]), 2).selected.tolist()
      [1.0, 2.0]
    """
    right, positive = np.asarray(right) > 0, np.asarray(y) == 1
    selected = np.where(right, positive, ~positive)
    place = groups if owners is None else np.asarray(owners) * num_groups + groups
    shape = (num_groups,) if owners is None else (num_owners, num_groups)

    def counted(marked):
        return np.bincount(place, marked, np.prod(shape)).reshape(shape)

    kinds = (np.ones(len(right)), positive, selected, positive & selected)
    return Counts(*map(counted, kinds))


def rates(counts: Counts) -> dict[str, np.ndarray]:
    """Returns {name of `RATES`: [..., groups]}; NaN where there are no rows of the kind.

    Example:
      >>> found = rates(Counts(*np.array([[4.0], [1.0], [2.0], [1.0]])))
      >>> found["accuracy"].tolist(), found["false_positive_rate"].round(3).tolist()
      ([0.75], [0.333])
    """
    rows, positive, selected, hits = counts
    false = selected - hits
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            "accuracy": (rows - positive - false + hits) / rows,
            "selection_rate": selected / rows,
            "true_positive_rate": hits / positive,
            "false_positive_rate": false / (rows - positive),
        }


def gaps(counts: Counts) -> dict[str, np.ndarray]:
    """Compares the groups that a group of rows has.

    A difference is that of the largest and the smallest rate of groups, 0 where they are alike; a
    ratio is the smallest over the largest, 1 where they are alike. Of several rates the worse one
    counts. Demographic parity compares how often class 1 is predicted; equal opportunity, how often
    among rows of class 1; equalized odds, among rows of either class.

    Returns:
      {name of `GAPS`: [...]}; NaN where fewer than two groups have a rate.

    Example:
      >>> found = gaps(Counts(*np.array([[4.0, 4.0], [2.0, 2.0], [2.0, 1.0], [1.0, 1.0]])))
      >>> float(found["demographic_parity_difference"]), float(found["demographic_parity_ratio"])
      (0.25, 0.5)
    """
    found = rates(counts)
    result = {}
    for name, compared in _COMPARED.items():
        of_rates = np.stack([found[rate] for rate in compared])
        known = ~np.isnan(of_rates)
        highest = np.where(known, of_rates, -np.inf).max(-1)
        lowest = np.where(known, of_rates, np.inf).min(-1)
        comparable = known.sum(-1) > 1
        with np.errstate(invalid="ignore", divide="ignore"):
            difference = np.where(comparable, highest - lowest, np.nan)
            ratio = np.where(comparable, lowest / highest, np.nan)
        result[f"{name}_difference"] = difference.max(0)
        result[f"{name}_ratio"] = ratio.min(0)
    return result


def intervals(
    by_client: Counts, *, level: float = 0.95, resamples: int = 500, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """Returns how far gaps would vary with other clients of the same population.

    Clients, with all of their rows, are drawn with replacement (the bootstrap of clusters), since
    rows of one client resemble each other. An interval is one of percentiles.

    Args:
      by_client: Counts [N, groups].
      level: Share of resamples within the interval.
      resamples: How many populations of N clients are drawn.
      seed: Of the draws.

    Returns:
      {name of `GAPS`: (low, high)}, NaN without a resample in which the gap is defined.

    Example:
      >>> alike = Counts(*(np.full((5, 2), number) for number in (4.0, 2.0, 2.0, 1.0)))
      >>> intervals(alike)["equal_opportunity_difference"]
      (0.0, 0.0)
    """
    stacked = np.stack(by_client)
    clients = stacked.shape[1]
    generator = random.generator(seed, "audit/bootstrap")
    drawn = generator.multinomial(clients, np.full(clients, 1 / clients), size=resamples)
    found = gaps(Counts(*np.einsum("bn,kng->kbg", drawn.astype(np.float64), stacked)))
    ends = (50 * (1 - level), 50 * (1 + level))
    result = {}
    for name, values in found.items():
        known = values[~np.isnan(values)]
        low, high = np.percentile(known, ends) if known.size else (np.nan, np.nan)
        result[name] = float(low), float(high)
    return result
