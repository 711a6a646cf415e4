"""Computes concordance and the partial likelihood of survival times, exactly, on the host."""

from __future__ import annotations

import numpy as np

TIES = ("breslow", "efron")


def concordance(times: np.ndarray, events: np.ndarray, risks: np.ndarray) -> float:
    """Returns Harrell's concordance: how often who fails earlier has the higher risk.

    A pair can be compared where one has an event, and the other is known to have lived longer: its
    time is later, or the same and censored. Two events at one time cannot be compared; equal risks
    count one half. This is the definition of lifelines' `concordance_index(times, -risks, events)`.
    It takes O(n log n) time.

    Args:
      times: [examples] times of the event, or until which an example was observed.
      events: [examples], above 0 where the event was observed, 0 where the time is censored.
      risks: float[examples]; higher means earlier.

    Returns:
      A number from 0 to 1; NaN where no pair can be compared, or a risk is NaN.

    Example:
      >>> tasks.concordance(np.array([1, 2, 3]), np.array([1, 1, 0]), np.array([0.9, 0.1, 0.5]))
      0.6666666666666666
    """
    times, happened, risks = np.asarray(times), np.asarray(events) > 0, np.asarray(risks)
    if np.isnan(risks).any():
        return float("nan")
    # at one time, events stand before those that are censored, and these outlive them
    order = np.lexsort((~happened, times))[::-1]
    times, happened, risks = times[order], happened[order], risks[order]
    starts = np.r_[True, (times[1:] != times[:-1]) | (happened[1:] != happened[:-1])]
    longer = np.maximum.accumulate(np.where(starts, np.arange(len(times)), 0))[happened]
    _, rank = np.unique(risks, return_inverse=True)
    below, up_to = (_counts_below(rank, longer, rank[happened] + more) for more in (0, 1))
    pairs = int(longer.sum())
    return int((below + up_to).sum()) / (2 * pairs) if pairs else float("nan")


def _counts_below(values: np.ndarray, ends: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """Returns how many of values[:end] are below a bound, for each pair of an end and a bound.

    It walks a wavelet matrix (Claude, Navarro and Ordóñez, 2015): the values are divided by one bit
    after another, the highest first, and each query follows its bound.

    Args:
      values: Integer[n], from 0 on.
      ends: Integer[m].
      bounds: Integer[m].
    """
    first, last = np.zeros_like(ends), ends
    found = np.zeros_like(ends)
    for bit in reversed(range(int(max(values.max(initial=0), bounds.max(initial=0))).bit_length())):
        is_set = (values >> bit & 1).astype(bool)
        unset = np.r_[0, np.cumsum(~is_set)]
        goes_up = (bounds >> bit & 1).astype(bool)
        found += np.where(goes_up, unset[last] - unset[first], 0)
        first, last = (
            np.where(goes_up, unset[-1] + place - unset[place], unset[place])
            for place in (first, last)
        )
        values = np.r_[values[~is_set], values[is_set]]
    return found


def cox_loss(times: np.ndarray, events: np.ndarray, risks: np.ndarray, ties: str) -> float:
    """Returns the negative log partial likelihood of Cox, a mean over events.

    Args:
      times, events, risks: As for `concordance`; risks are logarithms of hazard ratios.
      ties: "breslow" or "efron": what events at one time are taken for.

    Returns:
      A number; NaN without events.

    Example:
      >>> times, events, risks = np.array([1, 2]), np.array([1, 0]), np.zeros(2)
      >>> round(cox_loss(times, events, risks, "breslow"), 4)
      0.6931
    """
    order = np.argsort(times, kind="stable")
    times, happened = np.asarray(times)[order], np.asarray(events)[order] > 0
    risks = np.asarray(risks, np.float64)[order]
    if not happened.any():
        return float("nan")
    later = np.logaddexp.accumulate(risks[::-1])[::-1]
    at_risk = later[np.searchsorted(times, times[happened])]
    times, risks = times[happened], risks[happened]
    if ties == "efron":
        _, starts, place, counts = np.unique(
            times, return_index=True, return_inverse=True, return_counts=True
        )
        tied = np.logaddexp.reduceat(risks, starts)[place]
        share = (np.arange(len(times)) - starts[place]) / counts[place]
        at_risk = at_risk + np.log1p(-share * np.exp(tied - at_risk))
    return float((at_risk - risks).mean())
