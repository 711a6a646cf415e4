"""Drift of clients in a round's record: how large their updates are, and how far they agree.

With updates u_i of weights w_i, their mean u = sum(w_i u_i) / sum(w_i) and n_i = |u_i|, it holds
exactly, so that no update has to be kept, nor read again,

    drift/variance   sum(w_i |u_i - u|^2) / sum(w_i)           =  sum(w_i n_i^2) / sum(w_i) - |u|^2
    drift/cosine     sum(w_i n_i cos(u_i, u)) / sum(w_i n_i)   =  |u| sum(w_i) / sum(w_i n_i)

Of several clusters, u is the mean of a client's own; |u| and |u|^2 are then means over clusters,
by weight. The cosine is thus a mean over clients by the length of what they add to the sum: 1 where
all go one way, about 1 / sqrt(clients) where none agree. Statistics of norms count clients alike.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from fljax.engine.program.drift import NORM, NORM_OF_MEAN, SQUARE_OF_MEAN, WEIGHT
from fljax.training.totals import RoundTotals

STATISTICS = (NORM, WEIGHT, NORM_OF_MEAN, SQUARE_OF_MEAN)
KEYS = (
    *(f"drift/norm_{name}" for name in ("mean", "std", "p10", "p50", "p90", "max")),
    NORM_OF_MEAN,
    "drift/diverging",
)
KEYS_OF_WHOLE_UPDATES = ("drift/variance", "drift/cosine")

# Norms that grow to this many times the least there was, while the loss is above that of the first
# round, are no longer those of training: schedules that warm up let norms grow and the loss fall.
GROWTH = 10


def drift_record(
    stats: Mapping[str, np.ndarray], loss: float | None, totals: RoundTotals
) -> dict[str, Any]:
    """Returns what a record says of drift; nothing where nobody sent an update.

    Args:
      stats: Statistics [...] of the jobs of one trial in the last pass.
      loss: Training loss of the round; None where the algorithm tells none.
      totals: Of the trial; what later rounds are compared with is kept there.
    """
    if NORM not in stats:
        return {}
    kept = np.asarray(stats["jobs"]) > 0
    if not kept.any():
        return {}
    norms = np.sort(np.asarray(stats[NORM], np.float64)[kept])
    mean = float(norms.mean())
    together = float(np.asarray(stats[NORM_OF_MEAN])[kept][0])
    record = {
        "drift/norm_mean": mean,
        "drift/norm_std": float(norms.std()),
        **{f"drift/norm_p{p}": _percentile(norms, p) for p in (10, 50, 90)},
        "drift/norm_max": float(norms[-1]),
        NORM_OF_MEAN: together,
        "drift/diverging": int(_diverges(mean, loss, totals)),
    }
    if WEIGHT in stats:
        norms, weights = (np.asarray(stats[name], np.float64)[kept] for name in (NORM, WEIGHT))
        total, length = weights.sum(), weights @ norms
        if total:
            squares = stats.get(SQUARE_OF_MEAN)
            square = together**2 if squares is None else float(np.asarray(squares)[kept][0])
            record["drift/variance"] = max(0.0, float(weights @ norms**2 / total) - square)
        if length:
            # rounding alone goes beyond 1
            record["drift/cosine"] = min(1.0, float(together * total / length))
    return record


def alarm(record: Mapping[str, Any], totals: RoundTotals) -> str | None:
    """Returns what to say in the first round of a run whose updates diverge; None otherwise."""
    if totals.alarmed or not record.get("drift/diverging"):
        return None
    totals.alarmed = True
    return (
        f"Round {record['round']}: training diverges. The mean norm of the clients' updates is "
        f"{record['drift/norm_mean']:.3g}, more than {GROWTH} times what it was, and their loss is "
        "above that of the first round. Lower client_lr (or server_lr), take fewer local steps, or "
        "clip updates; see drift/* in the records."
    )


def _diverges(norm: float, loss: float | None, totals: RoundTotals) -> bool:
    """Compares a round with those before, and keeps what those after are compared with."""
    if totals.first_loss is None and loss is not None:
        totals.first_loss = loss
    worse = loss is None or not loss <= totals.first_loss
    grown = totals.least_norm is not None and norm > GROWTH * totals.least_norm
    if norm > 0:
        totals.least_norm = min(norm, totals.least_norm or math.inf)
    return worse and grown


def _percentile(ordered: np.ndarray, p: int) -> float:
    """Returns a percentile by linear interpolation, as `np.percentile` in a tenth of its time."""
    place = (len(ordered) - 1) * p / 100
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return float(ordered[low] + (place - low) * (ordered[high] - ordered[low]))
